// SPDX-License-Identifier: Apache-2.0
// Every op as its formula, in plain loops with double sums: the oracle of the other
// implementations, and a backend that runs anywhere (`scalar`). Slow. Packed weights are multiplied
// by the scalar panel kernels, whose bits are those of the vectorised ones.
#pragma once

#include "kernels/cpu/host_ops.h"

namespace puna::kernels {

class ReferenceOps final : public HostOps {
 public:
  explicit ReferenceOps(const CpuOptions& options = {})
      : HostOps(scalar_panel_kernels(), options) {}
  std::string_view name() const override { return "scalar"; }
  Result<> check_shape(const KvShape& /*shape*/) const override { return Ok{}; }
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
};

}  // namespace puna::kernels
