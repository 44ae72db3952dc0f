// SPDX-License-Identifier: Apache-2.0
// How rows of Activations stand in memory, and how f32 values are written into them.
//
//   f32   padded rows (ops.h)
//   bf16  rows padded with zeros to a multiple of 32 elements
//   int8  values, then one f32 scale per 32 columns, then one int32 sum of values per 16 columns
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/panel_kernels.h"
#include "kernels/ops.h"

namespace puna::kernels {

inline FloatRows float_rows(const Activations& activations) {
  return {reinterpret_cast<float*>(activations.data), activations.columns};
}

struct Bf16Rows {
  explicit Bf16Rows(const Activations& x)
      : data(reinterpret_cast<uint16_t*>(x.data)), stride(stride_of(x.columns)) {}
  static int64_t stride_of(int64_t columns) { return (columns + 31) / 32 * 32; }
  uint16_t* row(int64_t index) const { return data + index * stride; }

  uint16_t* data;
  int64_t stride;  // elements
};

// Columns are a multiple of 32.
struct Int8Layout {
  explicit Int8Layout(const Activations& x)
      : data(x.data), columns(x.columns), stride(stride_of(x.columns)) {}
  // An odd number of cache lines: rows of a power of two would share a few sets of the cache.
  static int64_t stride_of(int64_t columns) {
    const int64_t lines = (columns + columns / 32 * 4 + columns / 16 * 4 + 63) / 64;
    return (lines | 1) * 64;
  }
  int8_t* values(int64_t row) const { return reinterpret_cast<int8_t*>(data + row * stride); }
  float* scales(int64_t row) const {
    return reinterpret_cast<float*>(data + row * stride + columns);
  }
  int32_t* sums(int64_t row) const {
    return reinterpret_cast<int32_t*>(data + row * stride + columns + columns / 32 * 4);
  }

  std::byte* data;
  int64_t columns;
  int64_t stride;  // bytes
};

// Enough for any format.
inline int64_t activation_row_bytes(int64_t columns) {
  return std::max(padded_columns(columns) * int64_t{sizeof(float)},
                  Int8Layout::stride_of((columns + 31) / 32 * 32));
}

// Writes columns [first_column, first_column + columns) of `row` in out.format. For int8 both are
// multiples of out.format.group (or the row ends there); for bf16, first_column is even.
void store_activations(const PanelKernels& kernels, const float* values, int64_t row,
                       int64_t first_column, int64_t columns, const Activations& out);

}  // namespace puna::kernels
