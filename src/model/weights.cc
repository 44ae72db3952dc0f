// SPDX-License-Identifier: Apache-2.0
#include "model/weights.h"

#include <algorithm>
#include <initializer_list>
#include <utility>

#include "quant/dequant.h"

namespace puna::model {
namespace {

using formats::Checkpoint;
using formats::TensorView;
using formats::WeightRole;
using kernels::MatrixPart;
using kernels::Ops;

using Parts = std::vector<MatrixPart>;

// A matrix to be packed: tensors of the file that are multiplied together.
struct MatrixSource {
  std::vector<const TensorView*> tensors = {};
  Parts parts = {};
  kernels::PackOptions options;
};

MatrixPart part_of(const TensorView& view) {
  return {.type = view.type, .rows = view.rows, .columns = view.columns, .data = view.data};
}

MatrixSource source_of(const Checkpoint& checkpoint, int32_t layer,
                       std::initializer_list<WeightRole> roles) {
  const formats::ModelSpec& spec = checkpoint.spec();
  MatrixSource source{.options = {.head_dim = spec.head_dim}};
  for (const WeightRole role : roles) {
    const TensorView& view = checkpoint.tensor({role, layer});
    MatrixPart part = part_of(view);
    const bool rotated = role == WeightRole::kAttnQ || role == WeightRole::kAttnK;
    if (rotated && spec.rope_layout == formats::RopeLayout::kHalfSplit)
      part.order = kernels::RowOrder::kInterleaveHalves;
    // Attention finishes the heads of one KV head at a time.
    if (role == WeightRole::kAttnOutput)
      source.options.input_unit = int64_t{spec.num_heads / spec.num_kv_heads} * spec.head_dim;
    source.parts.push_back(part);
    source.tensors.push_back(&view);
  }
  return source;
}

// Calls use(source) for every matrix of the model: the head, then those of each layer in the order
// of LayerWeights.
template <typename Use>
void for_each_matrix(const Checkpoint& checkpoint, Use use) {
  using enum WeightRole;
  use(source_of(checkpoint, -1, {kOutputHead}));
  for (int32_t layer = 0; layer < checkpoint.spec().num_layers; ++layer) {
    use(source_of(checkpoint, layer, {kAttnQ, kAttnK, kAttnV}));
    use(source_of(checkpoint, layer, {kAttnOutput}));
    use(source_of(checkpoint, layer, {kFfnGate, kFfnUp}));
    use(source_of(checkpoint, layer, {kFfnDown}));
  }
}

uint64_t data_bytes(const MatrixSource& source) {
  uint64_t bytes = 0;
  for (const TensorView* tensor : source.tensors) bytes += tensor->data.size();
  return bytes;
}

// The head is the embedding, and is packed.
bool looks_up_in_head(const Checkpoint& checkpoint, const Ops& ops) {
  const MatrixPart head = part_of(checkpoint.tensor({WeightRole::kOutputHead}));
  return checkpoint.spec().tied_head && ops.packed_bytes(std::span(&head, 1)) > 0;
}

// Every weight has pages of its own.
uint64_t whole_pages(uint64_t bytes) {
  constexpr uint64_t kPage = 4096;
  return (bytes + kPage - 1) / kPage * kPage;
}

uint64_t norm_bytes(const Checkpoint& checkpoint) {
  return static_cast<uint64_t>(kernels::padded_columns(checkpoint.spec().hidden_size)) *
         sizeof(float);
}

Result<NormWeights> load_norm(const Checkpoint& checkpoint, const Ops& ops, WeightRole role,
                              int32_t layer) {
  const TensorView& view = checkpoint.tensor({role, layer});
  std::vector<float> values(static_cast<size_t>(view.columns));
  quant::dequantize(view.type, view.data, values);
  ASSIGN_OR_RETURN(kernels::Buffer buffer, ops.allocate(norm_bytes(checkpoint), view.name));
  ops.upload(values, buffer);
  return NormWeights{std::move(buffer)};
}

}  // namespace

Result<Weights> Weights::load(const Checkpoint& checkpoint, const Ops& ops,
                              const LoadProgress& progress) {
  uint64_t total = 0;
  for_each_matrix(checkpoint, [&](const MatrixSource& source) { total += data_bytes(source); });
  std::vector<std::unique_ptr<kernels::PackedMatrix>> matrices;  // in for_each_matrix order
  Result<> packed = Ok{};
  uint64_t done = 0;
  for_each_matrix(checkpoint, [&](const MatrixSource& source) {
    if (!packed.ok()) return;
    auto matrix = ops.pack(source.parts, source.options);
    if (!matrix.ok()) {
      packed = std::move(matrix).error();
      return;
    }
    matrices.push_back(std::move(matrix).value());
    if (ops.packed_bytes(source.parts) > 0) {
      for (const TensorView* tensor : source.tensors) checkpoint.drop_pages(*tensor);
    }
    done += data_bytes(source);
    if (progress) progress(done, total);
  });
  RETURN_IF_ERROR(std::move(packed));

  Weights weights;
  auto next = matrices.begin();
  if (!looks_up_in_head(checkpoint, ops)) {
    weights.embedding_ = ops.table(part_of(checkpoint.tensor({WeightRole::kTokenEmbedding})));
  }
  weights.head_ = std::move(*next++);
  ASSIGN_OR_RETURN(weights.output_norm_, load_norm(checkpoint, ops, WeightRole::kOutputNorm, -1));
  for (int32_t layer = 0; layer < checkpoint.spec().num_layers; ++layer) {
    LayerWeights& into = weights.layers_.emplace_back();
    ASSIGN_OR_RETURN(into.attn_norm, load_norm(checkpoint, ops, WeightRole::kAttnNorm, layer));
    into.qkv = std::move(*next++);
    into.attn_output = std::move(*next++);
    ASSIGN_OR_RETURN(into.ffn_norm, load_norm(checkpoint, ops, WeightRole::kFfnNorm, layer));
    into.gate_up = std::move(*next++);
    into.ffn_down = std::move(*next++);
  }
  return weights;
}

WeightBytes Weights::bytes(const Checkpoint& checkpoint, const Ops& ops) {
  const auto norms = 2 * static_cast<uint64_t>(checkpoint.spec().num_layers) + 1;
  WeightBytes bytes{.packed = norms * whole_pages(norm_bytes(checkpoint))};
  uint64_t packed_yet = 0;
  uint64_t peak = 0;
  for_each_matrix(checkpoint, [&](const MatrixSource& source) {
    const uint64_t packed = ops.packed_bytes(source.parts);
    const uint64_t file = data_bytes(source);
    packed_yet += whole_pages(packed);
    if (packed == 0) bytes.mapped += file;
    if (packed > 0) peak = std::max(peak, packed_yet + file);
  });
  bytes.packed += packed_yet;
  bytes.loading = peak > packed_yet ? peak - packed_yet : 0;
  // A tied embedding is the head, wherever that is.
  if (!checkpoint.spec().tied_head) {
    bytes.mapped += checkpoint.tensor({WeightRole::kTokenEmbedding}).data.size();
  }
  return bytes;
}

}  // namespace puna::model
