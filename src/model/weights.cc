// SPDX-License-Identifier: Apache-2.0
#include "model/weights.h"

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

Parts parts_of(const Checkpoint& checkpoint, int32_t layer,
               std::initializer_list<WeightRole> roles) {
  const bool half_split = checkpoint.spec().rope_layout == formats::RopeLayout::kHalfSplit;
  Parts parts;
  for (const WeightRole role : roles) {
    const TensorView& view = checkpoint.tensor({role, layer});
    const bool rotated = role == WeightRole::kAttnQ || role == WeightRole::kAttnK;
    parts.push_back({.type = view.type,
                     .rows = view.rows,
                     .columns = view.columns,
                     .data = view.data,
                     .order = half_split && rotated ? kernels::RowOrder::kInterleaveHalves
                                                    : kernels::RowOrder::kAsStored});
  }
  return parts;
}

// Calls use(parts) for every matrix of the model: those of each layer in the order of LayerWeights.
template <typename Use>
void for_each_matrix(const Checkpoint& checkpoint, Use use) {
  using enum WeightRole;
  use(parts_of(checkpoint, -1, {kTokenEmbedding}));
  if (!checkpoint.spec().tied_head) use(parts_of(checkpoint, -1, {kOutputHead}));
  for (int32_t layer = 0; layer < checkpoint.spec().num_layers; ++layer) {
    use(parts_of(checkpoint, layer, {kAttnQ, kAttnK, kAttnV}));
    use(parts_of(checkpoint, layer, {kAttnOutput}));
    use(parts_of(checkpoint, layer, {kFfnGate, kFfnUp}));
    use(parts_of(checkpoint, layer, {kFfnDown}));
  }
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

Result<Weights> Weights::load(const Checkpoint& checkpoint, const Ops& ops) {
  const int32_t head_dim = checkpoint.spec().head_dim;
  std::vector<std::unique_ptr<kernels::PackedMatrix>> matrices;  // in for_each_matrix order
  Result<> packed = Ok{};
  for_each_matrix(checkpoint, [&](const Parts& parts) {
    if (!packed.ok()) return;
    auto matrix = ops.pack(parts, head_dim);
    if (matrix.ok()) {
      matrices.push_back(std::move(matrix).value());
    } else {
      packed = std::move(matrix).error();
    }
  });
  RETURN_IF_ERROR(std::move(packed));

  Weights weights;
  auto next = matrices.begin();
  weights.embedding_ = std::move(*next++);
  if (!checkpoint.spec().tied_head) weights.head_ = std::move(*next++);
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

uint64_t Weights::bytes(const Checkpoint& checkpoint, const Ops& ops) {
  uint64_t bytes = 0;
  for_each_matrix(checkpoint, [&](const Parts& parts) { bytes += ops.packed_bytes(parts); });
  const auto norms = 2 * static_cast<uint64_t>(checkpoint.spec().num_layers) + 1;
  return bytes + norms * norm_bytes(checkpoint);
}

}  // namespace puna::model
