// SPDX-License-Identifier: Apache-2.0
#include "quant/gptq.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/check.h"
#include "quant/encode_kernels.h"

namespace puna::quant {
namespace {

constexpr double kDamp = 0.01;

// H = M * M^T with M upper triangular, in place of the upper triangle: Cholesky's decomposition
// from the last column to the first. False when H is not positive definite.
bool factorise(std::vector<float>& h, int64_t n) {
  const auto at = [&](int64_t row, int64_t column) -> float& {
    return h[static_cast<size_t>(row * n + column)];
  };
  for (int64_t j = n - 1; j >= 0; --j) {
    double diagonal = static_cast<double>(at(j, j));
    for (int64_t k = j + 1; k < n; ++k) {
      diagonal -= static_cast<double>(at(j, k)) * static_cast<double>(at(j, k));
    }
    if (!(diagonal > 0.0)) return false;
    at(j, j) = static_cast<float>(std::sqrt(diagonal));
    const float inverse = 1.0F / at(j, j);
    const float* pivot = &at(j, 0);
    for (int64_t i = 0; i < j; ++i) {
      const float* row = &at(i, 0);
      float lanes[16] = {};  // in a fixed order, and sixteen at a time
      int64_t k = j + 1;
      for (; k + 16 <= n; k += 16) {
        for (int64_t lane = 0; lane < 16; ++lane) lanes[lane] += row[k + lane] * pivot[k + lane];
      }
      float sum = 0.0F;
      for (; k < n; ++k) sum += row[k] * pivot[k];
      for (const float lane : lanes) sum += lane;
      at(i, j) = (at(i, j) - sum) * inverse;
    }
  }
  return true;
}

// M^-1, in its place: row by row from below, each a combination of the rows under it.
void invert_upper(std::vector<float>& m, int64_t n) {
  std::vector<float> row(static_cast<size_t>(n));
  for (int64_t i = n - 1; i >= 0; --i) {
    float* own = &m[static_cast<size_t>(i * n)];
    const float inverse = 1.0F / own[i];
    std::fill(row.begin(), row.end(), 0.0F);
    for (int64_t k = i + 1; k < n; ++k) {
      const float factor = own[k];
      const float* below = &m[static_cast<size_t>(k * n)];
      for (int64_t j = k; j < n; ++j) row[static_cast<size_t>(j)] += factor * below[j];
    }
    own[i] = inverse;
    for (int64_t j = i + 1; j < n; ++j) own[j] = -inverse * row[static_cast<size_t>(j)];
  }
}

}  // namespace

Result<GptqFactor> GptqFactor::of(std::vector<float> products, int64_t columns) {
  CHECK_EQ(products.size(), static_cast<size_t>(columns * columns));
  GptqFactor factor;
  factor.columns_ = columns;
  double mean = 0.0;
  for (int64_t i = 0; i < columns; ++i) {
    const float diagonal = products[static_cast<size_t>(i * columns + i)];
    if (!std::isfinite(diagonal) || diagonal < 0.0F) {
      return Error(ErrorCode::kCorrupt, "sums of activations are not finite or negative");
    }
    factor.importance_.push_back(diagonal);
    mean += static_cast<double>(diagonal) / static_cast<double>(columns);
  }
  if (!(mean > 0.0)) mean = 1.0;  // nothing ever reached the layer: plain rounding
  for (int64_t i = 0; i < columns; ++i) {
    products[static_cast<size_t>(i * columns + i)] += static_cast<float>(kDamp * mean);
    for (int64_t j = 0; j < i; ++j) {
      products[static_cast<size_t>(j * columns + i)] =
          products[static_cast<size_t>(i * columns + j)];
    }
  }
  if (!factorise(products, columns)) {
    return Error(ErrorCode::kCorrupt, "the products of activations are no such matrix");
  }
  invert_upper(products, columns);
  factor.upper_ = std::move(products);
  return factor;
}

void GptqFactor::round_row(std::span<float> row, int64_t group, std::span<BFloat16> scales,
                           std::span<int8_t> codes) const {
  CHECK_EQ(row.size(), static_cast<size_t>(columns_));
  CHECK_EQ(columns_ % group, 0);
  static const FitGroup kFit = fit_group();
  float scale = 0.0F;
  float inverse = 0.0F;
  for (int64_t i = 0; i < columns_; ++i) {
    const auto index = static_cast<size_t>(i);
    if (i % group == 0) {
      const float best = kFit(row.data() + i, importance_.data() + i, static_cast<size_t>(group));
      const BFloat16 stored = to_bfloat16(best);
      scales[static_cast<size_t>(i / group)] = stored;
      scale = to_float(stored);
      inverse = scale > 0.0F ? 1.0F / scale : 0.0F;
    }
    const float code = std::nearbyint(std::clamp(row[index] * inverse, -8.0F, 7.0F));
    codes[index] = static_cast<int8_t>(code);
    const float* factors = &upper_[index * static_cast<size_t>(columns_)];
    const float error = (row[index] - code * scale) / factors[i];
    for (int64_t j = i + 1; j < columns_; ++j) row[static_cast<size_t>(j)] -= error * factors[j];
  }
}

}  // namespace puna::quant
