// SPDX-License-Identifier: Apache-2.0
// Weights as the CPU uses them: in place in the mapped file, or packed into panels.
#pragma once

#include <vector>

#include "kernels/cpu/panel_kernels.h"
#include "kernels/ops.h"

namespace puna::kernels {

class HostMatrix final : public PackedMatrix {
 public:
  // Rows in the file. A row is found by arithmetic, so a row order costs nothing.
  struct Part {
    formats::TensorType type = formats::TensorType::kF32;
    int64_t rows = 0;
    int64_t block_elements = 1;
    int64_t block_bytes = 4;
    int64_t row_bytes = 0;
    const std::byte* data = nullptr;
    RowOrder order = RowOrder::kAsStored;
    int64_t head_dim = 0;

    // The blocks of packed row `row` from `column` on, a multiple of block_elements.
    const std::byte* blocks(int64_t row, int64_t column) const {
      return data + stored_row(row) * row_bytes + column / block_elements * block_bytes;
    }
    int64_t stored_row(int64_t row) const {
      if (order == RowOrder::kAsStored) return row;
      const int64_t in_head = row % head_dim;
      return row - in_head + in_head / 2 + (in_head % 2) * (head_dim / 2);
    }
  };
  // The same part as pairs of panels, 32 rows each.
  struct Panels {
    PanelKind kind = PanelKind::kQ4_0;
    int64_t bytes = 0;  // of one pair
    const std::byte* data = nullptr;
    const std::byte* pair(int64_t index) const { return data + index * bytes; }
  };

  HostMatrix(std::span<const MatrixPart> parts, int32_t head_dim);
  // Takes the memory in which the panels stand.
  void set_panels(std::vector<Panels> panels, Buffer memory, ActivationFormat input);

  const std::vector<Part>& parts() const { return parts_; }
  bool packed() const { return !panels_.empty(); }
  const std::vector<Panels>& panels() const { return panels_; }  // one per part, or none
  int64_t columns() const { return columns_; }
  ActivationFormat input() const override { return input_; }

  static const HostMatrix& of(const PackedMatrix& matrix) {
    return static_cast<const HostMatrix&>(matrix);
  }

 private:
  std::vector<Part> parts_;
  std::vector<Panels> panels_;
  Buffer memory_;
  ActivationFormat input_;
  int64_t columns_ = 0;
};

}  // namespace puna::kernels
