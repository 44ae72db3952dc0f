// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/activation_rows.h"

#include <cstring>

namespace puna::kernels {

void store_activations(const PanelKernels& kernels, const float* values, int64_t row,
                       int64_t first_column, int64_t columns, const Activations& out) {
  switch (out.format.type) {
    case ActivationType::kF32:
      std::memcpy(float_rows(out).row(row) + first_column, values,
                  static_cast<size_t>(columns) * sizeof(float));
      return;
    case ActivationType::kBF16: {
      const Bf16Rows rows(out);
      kernels.to_bf16(values, columns, rows.row(row) + first_column);
      if (first_column + columns == out.columns) {
        std::fill(rows.row(row) + out.columns, rows.row(row) + rows.stride, uint16_t{0});
      }
      return;
    }
    case ActivationType::kInt8: {
      const Int8Layout rows(out);
      kernels.quantize(values, columns, out.format.group, rows.values(row) + first_column,
                       rows.scales(row) + first_column / 32, rows.sums(row) + first_column / 16);
      return;
    }
  }
}

}  // namespace puna::kernels
