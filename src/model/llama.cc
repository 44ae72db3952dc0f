// SPDX-License-Identifier: Apache-2.0
#include "model/llama.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/check.h"

namespace puna::model {
namespace {

using formats::ModelSpec;
using kernels::Activations;
using kernels::FloatRows;
using kernels::Ops;

// So few rows that one lane norms them faster than two barriers take.
constexpr int32_t kRowsNormedByOneLane = 4;

kernels::KvShape kv_shape(const ModelSpec& spec, const LlamaLimits& limits) {
  return {.num_layers = spec.num_layers,
          .num_blocks = limits.num_blocks,
          .num_heads = spec.num_heads,
          .num_kv_heads = spec.num_kv_heads,
          .head_dim = spec.head_dim,
          .type = limits.kv_type};
}

// theta^(-2i / head_dim) / divisor, rounded to f32 where transformers rounds.
std::vector<float> inverse_frequencies(const ModelSpec& spec) {
  std::vector<float> result;
  for (int32_t i = 0; i < spec.head_dim / 2; ++i) {
    const double exponent = 2.0 * i / spec.head_dim;
    const double divisor = static_cast<double>(spec.rope_divisors[static_cast<size_t>(i)]);
    const auto frequency = static_cast<float>(1.0 / std::pow(spec.rope_theta, exponent));
    result.push_back(static_cast<float>(static_cast<double>(frequency) / divisor));
  }
  return result;
}

}  // namespace

// Lays the activations out one after another: run over a null base it counts their bytes.
class ActivationArena {
 public:
  ActivationArena(const Ops& ops, std::byte* base) : ops_(ops), base_(base) {}

  FloatRows floats(int64_t rows, int64_t columns) {
    const auto bytes =
        static_cast<uint64_t>(rows * kernels::padded_columns(columns)) * sizeof(float);
    return {reinterpret_cast<float*>(take(bytes)), columns};
  }
  Activations activations(int64_t rows, int64_t columns) {
    return {take(ops_.activation_bytes(rows, columns)), columns};
  }
  kernels::SequenceRows* sequences(int64_t count) {
    const auto bytes = static_cast<uint64_t>(count) * sizeof(kernels::SequenceRows);
    return reinterpret_cast<kernels::SequenceRows*>(take(bytes));
  }
  uint64_t used() const { return used_; }

 private:
  std::byte* take(uint64_t bytes) {
    std::byte* piece = base_ == nullptr ? nullptr : base_ + used_;
    used_ += (bytes + 63) / 64 * 64;
    return piece;
  }

  const Ops& ops_;
  std::byte* const base_;
  uint64_t used_ = 0;
};

Llama::Views Llama::Views::of(ActivationArena& arena, const ModelSpec& spec,
                              const LlamaLimits& limits) {
  return {.residual = arena.floats(limits.max_rows, spec.hidden_size),
          .normed = arena.activations(limits.max_rows, spec.hidden_size),
          .rotations = arena.floats(limits.max_rows, spec.head_dim),
          .queries = arena.floats(limits.max_rows, spec.q_size()),
          .attended = arena.activations(limits.max_rows, spec.q_size()),
          .ffn = arena.activations(limits.max_rows, spec.intermediate_size),
          .logits_in = arena.activations(limits.max_logit_rows, spec.hidden_size),
          .logits = arena.floats(limits.max_logit_rows, spec.vocab_size),
          .last = arena.sequences(limits.max_logit_rows)};
}

LlamaBytes Llama::bytes(const formats::Checkpoint& checkpoint, const Ops& ops,
                        const LlamaLimits& limits) {
  ActivationArena arena(ops, nullptr);
  Views::of(arena, checkpoint.spec(), limits);
  const WeightBytes weights = Weights::bytes(checkpoint, ops);
  return {.weights = weights.packed,
          .mapped = weights.mapped,
          .loading = weights.loading,
          .kv = ops.kv_bytes(kv_shape(checkpoint.spec(), limits)),
          .activations = arena.used()};
}

Result<Llama> Llama::create(const formats::Checkpoint& checkpoint, const Ops& ops,
                            const LlamaLimits& limits, const LoadProgress& progress) {
  const ModelSpec& spec = checkpoint.spec();
  const LlamaBytes bytes = Llama::bytes(checkpoint, ops, limits);
  RETURN_IF_ERROR(ops.check_shape(kv_shape(spec, limits)));
  ASSIGN_OR_RETURN(Weights weights, Weights::load(checkpoint, ops, progress));
  Llama llama(std::move(weights));
  llama.spec_ = &spec;
  llama.ops_ = &ops;
  llama.inverse_frequency_ = inverse_frequencies(spec);
  ASSIGN_OR_RETURN(llama.kv_memory_, ops.allocate(bytes.kv, "the KV cache"));
  ASSIGN_OR_RETURN(llama.activation_memory_, ops.allocate(bytes.activations, "activations"));
  llama.kv_ = {kv_shape(spec, limits), llama.kv_memory_.data()};

  ActivationArena arena(ops, llama.activation_memory_.data());
  llama.views_ = Views::of(arena, spec, limits);
  return llama;
}

kernels::Activations Llama::norm(kernels::Lane& lane, std::span<const int32_t> rows,
                                 int32_t num_rows, const NormWeights& weight,
                                 const kernels::PackedMatrix& reader, Activations out) const {
  out.format = reader.input();
  const auto write = [&](kernels::Lane& writer) {
    ops_->rms_norm(writer, views_.residual, rows, num_rows, weight.values(), spec_->rms_norm_eps,
                   out);
  };
  if (num_rows <= kRowsNormedByOneLane) {
    lane.sync_then([&] {
      kernels::Lane whole;
      write(whole);
    });
  } else {
    lane.sync();
    write(lane);
    lane.sync();
  }
  return out;
}

void Llama::forward(kernels::Lane& lane, const LlamaStep& step) const {
  ops_->embed(lane, weights_.embedding(), step.tokens, views_.residual);
  ops_->rotations(lane, step.sequences, inverse_frequency_, views_.rotations);
  const auto rows = static_cast<int32_t>(step.tokens.size());
  const auto num_logits = static_cast<int32_t>(step.logit_rows.size());
  const int32_t last = spec_->num_layers - 1;
  for (int32_t index = 0; index < last; ++index) {
    project(lane, step, index);
    lane.sync();
    finish(lane, step.sequences, rows, index);
  }
  project(lane, step, last);
  const bool whole = step.every_row || num_logits == rows;
  if (whole) {
    lane.sync();
    finish(lane, step.sequences, rows, last);
  } else if (num_logits > 0) {
    lane.sync_then([&] { keep_logit_rows(step); });
    finish(lane, {views_.last, step.logit_rows.size()}, num_logits, last);
  }
  if (num_logits == 0) return;
  const Activations x = norm(lane, whole ? step.logit_rows : std::span<const int32_t>(), num_logits,
                             weights_.output_norm(), weights_.head(), views_.logits_in);
  ops_->matmul(lane, x, num_logits, weights_.head(), views_.logits);
}

void Llama::keep_logit_rows(const LlamaStep& step) const {
  size_t sequence = 0;
  for (size_t i = 0; i < step.logit_rows.size(); ++i) {
    const int32_t row = step.logit_rows[i];
    CHECK(i == 0 || row > step.logit_rows[i - 1]);
    while (row >= step.sequences[sequence].first_row + step.sequences[sequence].num_rows)
      ++sequence;
    const kernels::SequenceRows& own = step.sequences[sequence];
    views_.last[i] = {.first_row = static_cast<int32_t>(i),
                      .num_rows = 1,
                      .first_position = own.first_position + row - own.first_row,
                      .block_table = own.block_table};
    for (const FloatRows& of : {views_.queries, views_.residual}) {
      const auto to = static_cast<int64_t>(i);
      if (row != to) std::copy_n(of.row(row), of.columns, of.row(to));
    }
  }
}

void Llama::project(kernels::Lane& lane, const LlamaStep& step, int32_t index) const {
  const LayerWeights& w = weights_.layers()[static_cast<size_t>(index)];
  const auto rows = static_cast<int32_t>(step.tokens.size());
  const Activations x = norm(lane, {}, rows, w.attn_norm, *w.qkv, views_.normed);
  ops_->matmul_qkv(lane, x, *w.qkv, views_.rotations, step.sequences, kv_, index, views_.queries);
}

// With project(), five barriers for a few rows, seven for more.
void Llama::finish(kernels::Lane& lane, std::span<const kernels::SequenceRows> sequences,
                   int32_t rows, int32_t index) const {
  const LayerWeights& w = weights_.layers()[static_cast<size_t>(index)];
  Activations attended = views_.attended;
  attended.format = w.attn_output->input();
  Activations ffn = views_.ffn;
  ffn.format = w.ffn_down->input();

  ops_->attention(lane, views_.queries, sequences, kv_, index, attended);
  lane.sync();
  ops_->matmul_add(lane, attended, rows, *w.attn_output, views_.residual);
  const Activations x = norm(lane, {}, rows, w.ffn_norm, *w.gate_up, views_.normed);
  ops_->matmul_swiglu(lane, x, rows, *w.gate_up, ffn);
  lane.sync();
  ops_->matmul_add(lane, ffn, rows, *w.ffn_down, views_.residual);
}

}  // namespace puna::model
