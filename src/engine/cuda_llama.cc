// SPDX-License-Identifier: Apache-2.0
#include "engine/cuda_llama.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/check.h"
#include "engine/cuda_upload.h"
#include "kernels/cuda/row_kernels.h"

namespace puna::engine {
namespace {

namespace cuda = kernels::cuda;
using cuda::Arena;
using formats::ModelSpec;

constexpr float kRandomDeviation = 0.02F;
// Decode attention's warps that fit on a multiprocessor, by shared memory.
constexpr size_t kTunedWeights = 6;  // more than the L2 cache holds, for Llama 3 8B's shapes

int64_t qkv_size(const ModelSpec& spec) { return spec.q_size() + 2 * int64_t{spec.kv_size()}; }

cuda::AttentionShape attention_shape(const ModelSpec& spec) {
  return {spec.num_heads, spec.num_kv_heads, spec.head_dim};
}

int64_t kv_elements(const ModelSpec& spec, int32_t num_blocks) {
  return int64_t{num_blocks} * 2 * spec.kv_size() * cuda::kCellsPerBlock;
}

uint64_t bytes_of(int64_t count, size_t element) {
  return Arena::aligned(static_cast<uint64_t>(count) * element);
}
uint64_t halves(int64_t count) { return bytes_of(count, sizeof(Float16)); }
uint64_t floats(int64_t count) { return bytes_of(count, sizeof(float)); }

int32_t most_pieces(const ModelSpec& spec) {
  return std::max(cuda::gemm_pieces(spec.hidden_size, spec.q_size()),
                  cuda::gemm_pieces(spec.hidden_size, spec.intermediate_size));
}

}  // namespace

Result<> CudaLlama::check(const ModelSpec& spec) {
  const int32_t unit = cuda::kColumnUnit;
  if (!cuda::attention_supports(attention_shape(spec))) {
    return Error(ErrorCode::kUnsupported,
                 "the CUDA backend has no attention for heads of {} with {} query heads on each of "
                 "{} KV heads (heads of 16, 32, 64 or 128; at most {} query heads on each)",
                 spec.head_dim, spec.num_heads / spec.num_kv_heads, spec.num_kv_heads,
                 cuda::kMaxGroup);
  }
  if (spec.hidden_size % unit != 0 || spec.intermediate_size % unit != 0 ||
      spec.hidden_size > cuda::kMaxHidden) {
    return Error(
        ErrorCode::kUnsupported,
        "the CUDA backend wants hidden and intermediate sizes that are multiples of {} and "
        "a hidden size of at most {}, not {} and {}",
        unit, cuda::kMaxHidden, spec.hidden_size, spec.intermediate_size);
  }
  return Ok{};
}

CudaLlamaBytes CudaLlama::bytes(const ModelSpec& spec, const CudaLlamaLimits& limits) {
  const int64_t hidden = spec.hidden_size;
  const int64_t inner = spec.intermediate_size;
  const int64_t rows = cuda::padded_rows(limits.max_rows);
  const int64_t logit_rows = cuda::padded_rows(limits.max_logit_rows);
  CudaLlamaBytes bytes;
  bytes.weights =
      (spec.tied_head ? 1 : 2) * halves(spec.vocab_size * hidden) + floats(hidden) +
      static_cast<uint64_t>(spec.num_layers) *
          (2 * floats(hidden) + halves(qkv_size(spec) * hidden) + halves(hidden * spec.q_size()) +
           halves(2 * inner * hidden) + halves(hidden * inner));
  bytes.kv = static_cast<uint64_t>(spec.num_layers) * halves(kv_elements(spec, limits.num_blocks));
  bytes.activations = floats(rows * hidden) + halves(rows * hidden) +
                      halves(rows * qkv_size(spec)) + 2 * halves(rows * spec.q_size()) +
                      halves(rows * 2 * inner) + halves(rows * inner) +
                      floats(rows * hidden * most_pieces(spec)) + halves(logit_rows * hidden) +
                      floats(logit_rows * hidden) + floats(logit_rows * spec.vocab_size) +
                      floats(int64_t{limits.max_positions} * spec.head_dim);
  const int32_t chunks = cuda::chunks_of_positions(limits.max_positions);
  bytes.attention =
      floats(cuda::partial_floats(attention_shape(spec), limits.max_logit_rows, chunks));
  return bytes;
}

uint64_t CudaLlama::kv_block_bytes(const ModelSpec& spec) {
  return static_cast<uint64_t>(spec.num_layers * kv_elements(spec, 1)) * sizeof(Float16);
}

int64_t CudaLlama::piece_stride() const {
  return int64_t{cuda::padded_rows(limits_.max_rows)} * spec_.hidden_size;
}

void CudaLlama::lay_out() {
  const int64_t hidden = spec_.hidden_size;
  const int64_t inner = spec_.intermediate_size;
  const int64_t rows = cuda::padded_rows(limits_.max_rows);
  const int64_t logit_rows = cuda::padded_rows(limits_.max_logit_rows);
  embedding_ = arena_.take<Float16>(spec_.vocab_size * hidden);
  head_ = spec_.tied_head ? embedding_ : arena_.take<Float16>(spec_.vocab_size * hidden);
  output_norm_ = arena_.take<float>(hidden);
  layers_.resize(static_cast<size_t>(spec_.num_layers));
  for (Layer& layer : layers_) {
    layer.attn_norm = arena_.take<float>(hidden);
    layer.qkv = arena_.take<Float16>(qkv_size(spec_) * hidden);
    layer.attn_output = arena_.take<Float16>(hidden * spec_.q_size());
    layer.ffn_norm = arena_.take<float>(hidden);
    layer.gate_up = arena_.take<Float16>(2 * inner * hidden);
    layer.down = arena_.take<Float16>(hidden * inner);
    layer.kv = arena_.take<Float16>(kv_elements(spec_, limits_.num_blocks));
  }
  work_.residual = arena_.take<float>(rows * hidden);
  work_.normed = arena_.take<Float16>(rows * hidden);
  work_.qkv = arena_.take<Float16>(rows * qkv_size(spec_));
  work_.queries = arena_.take<Float16>(rows * spec_.q_size());
  work_.attended = arena_.take<Float16>(rows * spec_.q_size());
  work_.gate_up = arena_.take<Float16>(rows * 2 * inner);
  work_.ffn = arena_.take<Float16>(rows * inner);
  work_.pieces = arena_.take<float>(rows * hidden * most_pieces(spec_));
  work_.last_residual = arena_.take<float>(logit_rows * hidden);
  work_.logits_in = arena_.take<Float16>(logit_rows * hidden);
  work_.logits = arena_.take<float>(logit_rows * spec_.vocab_size);
  work_.rotations = arena_.take<float>(int64_t{limits_.max_positions} * spec_.head_dim);
  scratch_.max_chunks = cuda::chunks_of_positions(limits_.max_positions);
  scratch_.partials = arena_.take<float>(
      cuda::partial_floats(attention_shape(spec_), limits_.max_logit_rows, scratch_.max_chunks));
}

// theta^(-2i / head_dim) / divisor, rounded to f32 where transformers rounds; then its angle's
// cosine and sine for every position.
void CudaLlama::upload_rotations() {
  const int32_t pairs = spec_.head_dim / 2;
  std::vector<float> values;
  values.reserve(static_cast<size_t>(limits_.max_positions) * static_cast<size_t>(pairs) * 2);
  for (int32_t position = 0; position < limits_.max_positions; ++position) {
    for (int32_t i = 0; i < pairs; ++i) {
      const double exponent = 2.0 * i / spec_.head_dim;
      const auto frequency = static_cast<float>(1.0 / std::pow(spec_.rope_theta, exponent));
      const double divisor = static_cast<double>(spec_.rope_divisors[static_cast<size_t>(i)]);
      const auto inverse = static_cast<float>(static_cast<double>(frequency) / divisor);
      const auto angle = static_cast<double>(static_cast<float>(position) * inverse);
      values.push_back(static_cast<float>(std::cos(angle)));
      values.push_back(static_cast<float>(std::sin(angle)));
    }
  }
  cuda::check_device(cudaMemcpy(work_.rotations, values.data(), values.size() * sizeof(float),
                                cudaMemcpyHostToDevice),
                     "copying rotations");
}

void CudaLlama::fill(cuda::Stream stream) {
  const int64_t hidden = spec_.hidden_size;
  uint64_t seed = 1;
  const auto matrix = [&](Float16* to, int64_t rows, int64_t columns) {
    cuda::fill_random(to, rows * columns, ++seed, kRandomDeviation, cuda::RandomValues::kOfBFloat16,
                      stream);
  };
  matrix(embedding_, spec_.vocab_size, hidden);
  if (head_ != embedding_) matrix(head_, spec_.vocab_size, hidden);
  cuda::fill_value(output_norm_, hidden, 1.0F, stream);
  for (const Layer& layer : layers_) {
    cuda::fill_value(layer.attn_norm, hidden, 1.0F, stream);
    cuda::fill_value(layer.ffn_norm, hidden, 1.0F, stream);
    matrix(layer.qkv, qkv_size(spec_), hidden);
    matrix(layer.attn_output, hidden, spec_.q_size());
    matrix(layer.gate_up, 2 * int64_t{spec_.intermediate_size}, hidden);
    matrix(layer.down, hidden, spec_.intermediate_size);
  }
}

Result<> CudaLlama::load(const formats::Checkpoint& checkpoint, cuda::Stream stream) {
  ASSIGN_OR_RETURN(CudaUpload upload, CudaUpload::create(checkpoint, stream));
  using enum formats::WeightRole;
  const int64_t hidden = spec_.hidden_size;
  upload.matrix({kTokenEmbedding}, embedding_);
  if (head_ != embedding_) upload.matrix({kOutputHead}, head_);
  upload.vector({kOutputNorm}, output_norm_);
  for (int32_t index = 0; index < spec_.num_layers; ++index) {
    const Layer& layer = layers_[static_cast<size_t>(index)];
    upload.vector({kAttnNorm, index}, layer.attn_norm);
    upload.rotated_matrix({kAttnQ, index}, layer.qkv);
    upload.rotated_matrix({kAttnK, index}, layer.qkv + spec_.q_size() * hidden);
    upload.matrix({kAttnV, index},
                  layer.qkv + (spec_.q_size() + int64_t{spec_.kv_size()}) * hidden);
    upload.matrix({kAttnOutput, index}, layer.attn_output);
    upload.vector({kFfnNorm, index}, layer.ffn_norm);
    upload.matrix({kFfnGate, index}, layer.gate_up);
    upload.matrix({kFfnUp, index}, layer.gate_up + spec_.intermediate_size * hidden);
    upload.matrix({kFfnDown, index}, layer.down);
  }
  upload.finish();
  return Ok{};
}

Result<> CudaLlama::prepare_gemms(const cuda::DeviceFacts& device, cuda::Stream stream) {
  const std::string machine = fmt::format("{}, {} multiprocessors, driver {}", device.name,
                                          device.multiprocessors, device.driver);
  ASSIGN_OR_RETURN(library_, cuda::GemmLibrary::open(limits_.tuning_folder, machine));
  const int64_t hidden = spec_.hidden_size;
  const auto weights_of = [&](auto weight_of) {
    std::vector<const Float16*> weights;
    for (const Layer& layer : layers_) {
      if (weights.size() < kTunedWeights) weights.push_back(weight_of(layer));
    }
    return weights;
  };
  const auto randomise = [&](Float16* x, int32_t max_rows, int64_t columns) {
    cuda::fill_random(x, int64_t{cuda::padded_rows(max_rows)} * columns, 7, 1.0F,
                      cuda::RandomValues::kOfFloat16, stream);
  };
  const auto prepare = [&](GemmPtr& gemm, const cuda::GemmShape& shape, int32_t max_rows,
                           Float16* x, void* out, auto weight_of) -> Result<> {
    const std::vector<const Float16*> weights = weights_of(weight_of);
    randomise(x, max_rows, shape.columns);
    const cuda::GemmTuning tuning = {.weights = weights, .x = x, .out = out, .stream = stream};
    ASSIGN_OR_RETURN(gemm, library_->prepare(shape, max_rows, tuning));
    return Ok{};
  };
  const auto adding = [&](int64_t columns) {
    return cuda::GemmShape{.outputs = hidden,
                           .columns = columns,
                           .pieces = cuda::gemm_pieces(hidden, columns),
                           .f32_out = true,
                           .piece_stride = piece_stride()};
  };
  const int32_t rows = limits_.max_rows;
  RETURN_IF_ERROR(prepare(qkv_gemm_, {.outputs = qkv_size(spec_), .columns = hidden}, rows,
                          work_.normed, work_.qkv, [](const Layer& l) { return l.qkv; }));
  RETURN_IF_ERROR(prepare(attn_output_gemm_, adding(spec_.q_size()), rows, work_.attended,
                          work_.pieces, [](const Layer& l) { return l.attn_output; }));
  randomise(work_.normed, rows, hidden);
  ASSIGN_OR_RETURN(gate_up_,
                   cuda::GatedProduct::prepare(
                       *library_, spec_.intermediate_size, hidden, rows,
                       {.x = work_.normed, .between = work_.gate_up, .activated = work_.ffn},
                       weights_of([](const Layer& l) { return l.gate_up; }), stream));
  RETURN_IF_ERROR(prepare(down_gemm_, adding(spec_.intermediate_size), rows, work_.ffn,
                          work_.pieces, [](const Layer& l) { return l.down; }));
  return prepare(head_gemm_, {.outputs = spec_.vocab_size, .columns = hidden, .f32_out = true},
                 limits_.max_logit_rows, work_.logits_in, work_.logits,
                 [&](const Layer&) { return head_; });
}

Result<std::unique_ptr<CudaLlama>> CudaLlama::create(const ModelSpec& spec,
                                                     const formats::Checkpoint* checkpoint,
                                                     const CudaLlamaLimits& limits,
                                                     const cuda::DeviceFacts& device,
                                                     cuda::Stream stream) {
  RETURN_IF_ERROR(check(spec));
  std::unique_ptr<CudaLlama> llama(new CudaLlama(spec, limits));
  ASSIGN_OR_RETURN(llama->arena_,
                   Arena::on_device(bytes(spec, limits).total(), "weights, KV and activations"));
  llama->lay_out();
  CHECK_EQ(llama->arena_.used(), llama->arena_.bytes());
  llama->decode_blocks_ = device.multiprocessors;
  cuda::prepare_attention();
  llama->upload_rotations();
  if (checkpoint != nullptr) {
    RETURN_IF_ERROR(llama->load(*checkpoint, stream));
  } else {
    llama->fill(stream);
  }
  RETURN_IF_ERROR(llama->prepare_gemms(device, stream));
  cuda::check_device(cudaStreamSynchronize(stream), "loading the model");
  return llama;
}

void CudaLlama::norm(float* residual, int32_t rows, const int32_t* row_index, int32_t parts,
                     const float* weight, Float16* out, cuda::Stream stream) const {
  cuda::add_norm({.residual = residual,
                  .pieces = work_.pieces,
                  .piece_stride = piece_stride(),
                  .parts = parts,
                  .row_index = row_index,
                  .weight = weight,
                  .eps = spec_.rms_norm_eps,
                  .out = out,
                  .rows = rows,
                  .hidden = spec_.hidden_size},
                 stream);
}

// Where all rows decode, attention rotates and stores.
void CudaLlama::project(const CudaStep& step, const Layer& layer, cuda::Stream stream) const {
  qkv_gemm_->run(work_.normed, layer.qkv, work_.qkv, step.rows, stream);
  if (step.num_tiles == 0) return;
  cuda::rotate_and_store({.qkv = work_.qkv,
                          .positions = step.positions,
                          .cells = step.cells,
                          .rotations = work_.rotations,
                          .queries = work_.queries,
                          .kv = layer.kv,
                          .rows = step.rows,
                          .num_heads = spec_.num_heads,
                          .num_kv_heads = spec_.num_kv_heads,
                          .head_dim = spec_.head_dim},
                         stream);
}

cuda::AttentionArgs CudaLlama::attention_args(const CudaStep& step, const Layer& layer,
                                              const Float16* queries) const {
  return {.shape = attention_shape(spec_),
          .queries = queries,
          .kv = layer.kv,
          .block_tables = step.block_tables,
          .out = work_.attended,
          .scale = 1.0F / std::sqrt(static_cast<float>(spec_.head_dim))};
}

void CudaLlama::attend(const CudaStep& step, const Layer& layer, cuda::Stream stream) const {
  const cuda::AttentionArgs args = attention_args(step, layer, work_.queries);
  if (step.num_decode_rows > 0) {
    cuda::UnrotatedRows unrotated;
    if (step.num_tiles == 0) {
      unrotated = {.qkv = work_.qkv, .rotations = work_.rotations, .kv = layer.kv};
    }
    const cuda::DecodeRows rows = {step.decode_items, step.num_decode_items, step.positions,
                                   step.num_decode_rows, step.decode_way};
    cuda::attention_decode(args, unrotated, rows, scratch_, decode_blocks_, stream);
  }
  if (step.num_tiles > 0) cuda::attention_prefill(args, step.tiles, step.num_tiles, stream);
}

// The projection's memory is free for the queries that go on.
void CudaLlama::attend_logit_rows(const CudaStep& step, const Layer& layer,
                                  cuda::Stream stream) const {
  cuda::gather_rows({.row_index = step.logit_rows,
                     .queries = work_.queries,
                     .queries_out = work_.qkv,
                     .q_size = spec_.q_size(),
                     .residual = work_.residual,
                     .residual_out = work_.last_residual,
                     .hidden = spec_.hidden_size,
                     .rows = step.num_logits},
                    stream);
  const cuda::AttentionArgs args = attention_args(step, layer, work_.qkv);
  const cuda::DecodeRows rows = {step.last_items, step.num_last_items, step.last_positions,
                                 step.num_logits, step.last_way};
  cuda::attention_decode(args, {}, rows, scratch_, decode_blocks_, stream);
}

void CudaLlama::finish(const Layer& layer, float* residual, int32_t rows,
                       cuda::Stream stream) const {
  attn_output_gemm_->run(work_.attended, layer.attn_output, work_.pieces, rows, stream);
  norm(residual, rows, nullptr, cuda::gemm_pieces(spec_.hidden_size, spec_.q_size()),
       layer.ffn_norm, work_.normed, stream);
  gate_up_->run(layer.gate_up, rows, stream);
  down_gemm_->run(work_.ffn, layer.down, work_.pieces, rows, stream);
}

void CudaLlama::forward(const CudaStep& step, cuda::Stream stream) const {
  cuda::embed({.tokens = step.tokens,
               .slots = step.slots,
               .last_tokens = step.last_tokens,
               .table = embedding_,
               .out = work_.residual,
               .rows = step.rows,
               .hidden = spec_.hidden_size},
              stream);
  const int32_t down_parts = cuda::gemm_pieces(spec_.hidden_size, spec_.intermediate_size);
  // Other rows leave the last layer after their keys and values.
  const bool few = step.num_tiles > 0;
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = layers_[i];
    norm(work_.residual, step.rows, nullptr, i == 0 ? 0 : down_parts, layer.attn_norm, work_.normed,
         stream);
    project(step, layer, stream);
    if (few && i + 1 == layers_.size()) break;
    attend(step, layer, stream);
    finish(layer, work_.residual, step.rows, stream);
  }
  if (step.num_logits == 0) return;
  if (few) {
    attend_logit_rows(step, layers_.back(), stream);
    finish(layers_.back(), work_.last_residual, step.num_logits, stream);
  }
  norm(few ? work_.last_residual : work_.residual, step.num_logits, few ? nullptr : step.logit_rows,
       down_parts, output_norm_, work_.logits_in, stream);
  head_gemm_->run(work_.logits_in, head_, work_.logits, step.num_logits, stream);
}

CudaKvBlocks CudaLlama::kv_blocks() const {
  CudaKvBlocks blocks;
  blocks.piece_bytes = static_cast<uint64_t>(kv_elements(spec_, 1)) * sizeof(Float16);
  blocks.num_blocks = limits_.num_blocks;
  for (const Layer& layer : layers_)
    blocks.layers.push_back(reinterpret_cast<std::byte*>(layer.kv));
  return blocks;
}

std::string CudaLlama::gemm_summary() const {
  std::string text;
  for (const GemmPtr* gemm : {&qkv_gemm_, &attn_output_gemm_, &down_gemm_, &head_gemm_})
    text += (*gemm)->summary() + "\n";
  return text + gate_up_->summary() + "\n";
}

}  // namespace puna::engine
