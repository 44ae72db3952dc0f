// SPDX-License-Identifier: Apache-2.0
// Rows and weights for the tests of kernels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/ops.h"
#include "kernels/random_weights.h"

namespace puna::kernels {

// f32 rows with padding, for inputs and outputs.
class RowBuffer {
 public:
  RowBuffer(int64_t rows, int64_t columns)
      : columns_(columns),
        values_(static_cast<size_t>(rows * padded_columns(columns) + kRowAlign), 0.0F) {}
  static RowBuffer random(int64_t rows, int64_t columns, uint32_t seed) {
    RowBuffer buffer(rows, columns);
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal;
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t column = 0; column < columns; ++column)
        buffer.floats().row(row)[column] = normal(generator);
    }
    return buffer;
  }
  FloatRows floats() { return {values_.data(), columns_}; }
  Activations activations() { return {reinterpret_cast<std::byte*>(values_.data()), columns_}; }

 private:
  int64_t columns_;
  std::vector<float> values_;
};

}  // namespace puna::kernels
