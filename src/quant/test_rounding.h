// SPDX-License-Identifier: Apache-2.0
// How the tests of GPTQ and AWQ judge a rounding: rows of one width, in one size of group.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/numeric.h"
#include "quant/encode_kernels.h"

namespace puna::quant {

inline constexpr int64_t kColumns = 128;
inline constexpr int64_t kGroup = 32;

// Sums of x[i] * x[j] over the rows x, [kColumns, kColumns], the lower triangle.
inline std::vector<float> products_of(const std::vector<float>& x) {
  std::vector<float> products(kColumns * kColumns);
  for (size_t row = 0; row < x.size() / kColumns; ++row) {
    for (size_t i = 0; i < kColumns; ++i) {
      for (size_t j = 0; j <= i; ++j) {
        products[i * kColumns + j] += x[row * kColumns + i] * x[row * kColumns + j];
      }
    }
  }
  return products;
}

// Sum of (x . (w - q))^2 over the inputs x and the rows of w and q.
inline double output_error(const std::vector<float>& x, const std::vector<float>& w,
                           const std::vector<float>& q) {
  double sum = 0.0;
  for (size_t input = 0; input < x.size() / kColumns; ++input) {
    for (size_t row = 0; row < w.size() / kColumns; ++row) {
      double difference = 0.0;
      for (size_t i = 0; i < kColumns; ++i) {
        const auto error =
            static_cast<double>(w[row * kColumns + i]) - static_cast<double>(q[row * kColumns + i]);
        difference += static_cast<double>(x[input * kColumns + i]) * error;
      }
      sum += difference * difference;
    }
  }
  return sum;
}

// Rows rounded to the nearest, each group's scale where that loses least.
inline std::vector<float> rounded_alone(const std::vector<float>& w) {
  std::vector<float> q(w.size());
  for (size_t begin = 0; begin < w.size(); begin += kGroup) {
    const float scale = to_float(to_bfloat16(fit_group()(w.data() + begin, nullptr, kGroup)));
    for (size_t i = begin; i < begin + kGroup; ++i) {
      q[i] = scale * std::nearbyint(std::clamp(w[i] / scale, -8.0F, 7.0F));
    }
  }
  return q;
}

}  // namespace puna::quant
