// SPDX-License-Identifier: Apache-2.0
// The vectorised CPU implementation: tiles, lanes and epilogues here, inner loops in a MicroKernels
// table.
//
// A matmul decodes a tile of weights (up to 24 columns of the result x 1,024 of depth) into f32
// once and multiplies up to 128 rows with it. Depth is cut at multiples of 1,024 and the pieces are
// added in order: so an element's bits depend on the weight's shape only. Attention works on chunks
// of 64 positions that start at multiples of 64, each with a softmax of its own, blended in order.
#pragma once

#include "kernels/cpu/host_ops.h"
#include "kernels/cpu/micro_kernels.h"

namespace puna::kernels {

class CpuOps final : public HostOps {
 public:
  // `name` and `kernels` must outlive the object.
  CpuOps(std::string_view name, const MicroKernels& kernels) : name_(name), kernels_(kernels) {}

  std::string_view name() const override { return name_; }
  Result<> check_shape(const KvShape& shape) const override;
  void embed(Lane& lane, const PackedMatrix& table, std::span<const int32_t> tokens,
             FloatRows out) const override;
  void rms_norm(Lane& lane, FloatRows x, std::span<const int32_t> rows, int32_t num_rows,
                const float* weight, float eps, Activations out) const override;
  void matmul_qkv(Lane& lane, Activations x, const PackedMatrix& qkv, FloatRows rotations,
                  std::span<const SequenceRows> sequences, const KvCache& kv, int32_t layer,
                  FloatRows q) const override;
  void attention(Lane& lane, FloatRows q, std::span<const SequenceRows> sequences,
                 const KvCache& kv, int32_t layer, Activations out) const override;
  void matmul(Lane& lane, Activations x, int32_t num_rows, const PackedMatrix& w,
              FloatRows out) const override;
  void matmul_add(Lane& lane, Activations x, int32_t num_rows, const PackedMatrix& w,
                  FloatRows out) const override;
  void matmul_swiglu(Lane& lane, Activations x, int32_t num_rows, const PackedMatrix& gate_up,
                     Activations out) const override;

  static constexpr int64_t kAttentionChunk = 64;  // positions
  static constexpr int64_t kAttentionRows =
      64;  // query rows x heads of a tile, most heads per KV head
  static constexpr int64_t kMaxHeadDim = 256;

 private:
  std::string_view name_;
  const MicroKernels& kernels_;
};

}  // namespace puna::kernels
