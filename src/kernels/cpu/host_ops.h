// SPDX-License-Identifier: Apache-2.0
// What every CPU implementation shares: memory, packing, rotations.
#pragma once

#include <vector>

#include "kernels/cpu/activation_rows.h"
#include "kernels/cpu/cpu_options.h"
#include "kernels/cpu/host_matrix.h"
#include "kernels/cpu/kv_layout.h"
#include "kernels/ops.h"

namespace puna::kernels {

class HostOps : public Ops {
 public:
  // `panels` must outlive the object.
  HostOps(const PanelKernels& panels, const CpuOptions& options)
      : panels_(panels), options_(options) {}
  Result<Buffer> allocate(uint64_t bytes, std::string_view what) const override;
  void upload(std::span<const float> values, const Buffer& to) const override;
  Result<std::unique_ptr<PackedMatrix>> pack(std::span<const MatrixPart> parts,
                                             const PackOptions& options) const override;
  std::unique_ptr<PackedMatrix> table(const MatrixPart& part) const override;
  uint64_t packed_bytes(std::span<const MatrixPart> parts) const override;
  uint64_t activation_bytes(int64_t rows, int64_t columns) const override;
  uint64_t kv_bytes(const KvShape& shape) const override { return KvLayout::bytes(shape); }
  void rotations(Lane& lane, std::span<const SequenceRows> sequences,
                 std::span<const float> inverse_frequency, FloatRows out) const override;

 protected:
  const PanelKernels& panels() const { return panels_; }

 private:
  // One kind per part, or none when the parts are used in place.
  std::vector<PanelKind> kinds_of(std::span<const MatrixPart> parts) const;

  const PanelKernels& panels_;
  const CpuOptions options_;
};

}  // namespace puna::kernels
