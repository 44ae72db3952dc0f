// SPDX-License-Identifier: Apache-2.0
// The vectorised CPU implementation: tiles, lanes and epilogues here, inner loops in tables of one
// instruction set.
//
// A result's bits depend on its row and the weights only. Packed weights: panel_kernels.h. Weights
// in place are decoded to f32, at most 1,024 of depth at a time, and the pieces are added in order.
// Attention: attention_kernels.h.
#pragma once

#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/host_ops.h"
#include "kernels/cpu/micro_kernels.h"
#include "kernels/cpu/panel_kernels.h"

namespace puna::kernels {

// The tables of one instruction set.
struct CpuKernels {
  std::string_view name;
  const MicroKernels& micro;
  const PanelKernels& panels;
  const AttentionKernels& attention;
};

class CpuOps final : public HostOps {
 public:
  // What `kernels` refers to must outlive the object.
  CpuOps(const CpuKernels& kernels, const CpuOptions& options)
      : HostOps(kernels.panels, options), kernels_(kernels) {}

  std::string_view name() const override { return kernels_.name; }
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

 private:
  const CpuKernels kernels_;
};

}  // namespace puna::kernels
