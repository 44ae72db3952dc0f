// SPDX-License-Identifier: Apache-2.0
#include "quant/awq.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "base/check.h"
#include "quant/encode_kernels.h"
#include "quant/run_on_threads.h"

namespace puna::quant {
namespace {

constexpr int kSteps = 20;                // of alpha, from 0 to 1
constexpr float kLeastMagnitude = 1e-4F;  // of the largest; columns that nothing reaches
constexpr size_t kRowsAtATime = 16;

float rounded(float value, float scale, float inverse) {
  return scale * std::nearbyint(std::clamp(value * inverse, -8.0F, 7.0F));
}

float as_stored(float scale) { return to_float(to_bfloat16(scale)); }

// Root mean squares of the inputs, up to a factor, by what makes them; [columns].
std::vector<float> magnitudes(const AwqInputs& inputs) {
  const auto columns = static_cast<size_t>(inputs.columns);
  const auto maker = [&](size_t column) {
    return inputs.made_by.empty() ? column : static_cast<size_t>(inputs.made_by[column]);
  };
  std::vector<float> sums(columns);
  std::vector<float> counts(columns);
  for (size_t i = 0; i < columns; ++i) {
    sums[maker(i)] += inputs.products[i * columns + i];
    counts[maker(i)] += 1.0F;
  }
  std::vector<float> result(columns);
  for (size_t i = 0; i < columns; ++i) result[i] = std::sqrt(sums[maker(i)] / counts[maker(i)]);
  const float largest = *std::max_element(result.begin(), result.end());
  if (!(largest > 0.0F)) return std::vector<float>(columns, 1.0F);
  for (float& value : result) value = std::max(value / largest, kLeastMagnitude);
  return result;
}

// magnitude^alpha, around 1.
std::vector<float> scales_of(const std::vector<float>& magnitudes, float alpha) {
  std::vector<float> scales(magnitudes.size());
  for (size_t i = 0; i < scales.size(); ++i) scales[i] = std::pow(magnitudes[i], alpha);
  const auto [least, largest] = std::minmax_element(scales.begin(), scales.end());
  const float middle = std::sqrt(*least * *largest);
  for (float& scale : scales) scale /= middle;
  return scales;
}

// The sum of e^T * H * e over sixteen rows e, errors: [columns][16].
double squared_outputs(std::span<const float> products, size_t columns, const float* errors) {
  double total = 0.0;
  for (size_t i = 0; i < columns; ++i) {
    const float* row = &products[i * columns];
    float sums[kRowsAtATime] = {};
    for (size_t j = 0; j < i; ++j) {
      const float* other = errors + j * kRowsAtATime;
      for (size_t lane = 0; lane < kRowsAtATime; ++lane) sums[lane] += row[j] * other[lane];
    }
    const float* own = errors + i * kRowsAtATime;
    float out = 0.0F;
    for (size_t lane = 0; lane < kRowsAtATime; ++lane) {
      out += own[lane] * (2.0F * sums[lane] + row[i] * own[lane]);
    }
    total += static_cast<double>(out);
  }
  return total;
}

// What rounding the scaled row changes in the unscaled one: errors[column * kRowsAtATime].
void errors_of_row(std::span<const float> row, std::span<const float> scales,
                   std::span<const float> importance, size_t group, std::vector<float>& scaled,
                   float* errors) {
  static const FitGroup kFit = fit_group();
  for (size_t i = 0; i < row.size(); ++i) scaled[i] = row[i] * scales[i];
  for (size_t begin = 0; begin < row.size(); begin += group) {
    const float scale = as_stored(kFit(&scaled[begin], &importance[begin], group));
    const float inverse = scale > 0.0F ? 1.0F / scale : 0.0F;
    for (size_t i = begin; i < begin + group; ++i) {
      errors[i * kRowsAtATime] = (scaled[i] - rounded(scaled[i], scale, inverse)) / scales[i];
    }
  }
}

std::vector<float> scaled_importance(std::span<const float> products,
                                     std::span<const float> scales) {
  std::vector<float> importance(scales.size());
  for (size_t i = 0; i < scales.size(); ++i) {
    importance[i] = products[i * scales.size() + i] / (scales[i] * scales[i]);
  }
  return importance;
}

}  // namespace

double awq_output_error(const AwqInputs& inputs, std::span<const float> scales, int64_t group,
                        int32_t threads) {
  const auto columns = static_cast<size_t>(inputs.columns);
  CHECK_EQ(scales.size(), columns);
  const size_t rows = inputs.rows.size() / columns;
  const std::vector<float> importance = scaled_importance(inputs.products, scales);
  std::vector<double> totals((rows + kRowsAtATime - 1) / kRowsAtATime);
  std::atomic<size_t> next{0};
  run_on_threads(threads, [&] {
    std::vector<float> errors(columns * kRowsAtATime);
    std::vector<float> scaled(columns);
    for (size_t piece = next++; piece < totals.size(); piece = next++) {
      const size_t first = piece * kRowsAtATime;
      const size_t count = std::min(rows - first, kRowsAtATime);
      std::fill(errors.begin(), errors.end(), 0.0F);
      for (size_t i = 0; i < count; ++i) {
        errors_of_row(std::span(inputs.rows).subspan((first + i) * columns, columns), scales,
                      importance, static_cast<size_t>(group), scaled, &errors[i]);
      }
      totals[piece] = squared_outputs(inputs.products, columns, errors.data());
    }
  });
  double total = 0.0;
  for (const double piece : totals) total += piece;
  return total;
}

std::vector<float> search_awq_scales(const AwqInputs& inputs, int64_t group, int32_t threads) {
  const std::vector<float> of_inputs = magnitudes(inputs);
  std::vector<float> best(of_inputs.size(), 1.0F);
  double least = awq_output_error(inputs, best, group, threads);
  for (int step = 1; step <= kSteps; ++step) {
    std::vector<float> scales =
        scales_of(of_inputs, static_cast<float>(step) / static_cast<float>(kSteps));
    const double error = awq_output_error(inputs, scales, group, threads);
    if (!(error < least)) continue;
    least = error;
    best = std::move(scales);
  }
  return best;
}

AwqRounding::AwqRounding(std::span<const float> products, std::span<const float> scales,
                         int64_t group)
    : group_(group), importance_(scaled_importance(products, scales)) {
  const size_t columns = scales.size();
  const auto size = static_cast<size_t>(group);
  products_.resize(columns * size);
  for (size_t begin = 0; begin < columns; begin += size) {
    for (size_t i = 0; i < size; ++i) {
      for (size_t j = 0; j <= i; ++j) {
        const float product =
            products[(begin + i) * columns + begin + j] / (scales[begin + i] * scales[begin + j]);
        products_[(begin + i) * size + j] = product;
        products_[(begin + j) * size + i] = product;
      }
    }
  }
}

double AwqRounding::error_of(std::span<const float> values, size_t group_index, float scale) const {
  const size_t size = values.size();
  const float inverse = scale > 0.0F ? 1.0F / scale : 0.0F;
  float errors[128];
  for (size_t i = 0; i < size; ++i) errors[i] = values[i] - rounded(values[i], scale, inverse);
  float sums[128] = {};
  const float* products = &products_[group_index * size * size];
  for (size_t i = 0; i < size; ++i) {
    for (size_t j = 0; j < size; ++j) sums[j] += errors[i] * products[i * size + j];
  }
  double total = 0.0;
  for (size_t i = 0; i < size; ++i) total += static_cast<double>(errors[i] * sums[i]);
  return total;
}

void AwqRounding::round_row(std::span<const float> row, std::span<BFloat16> group_scales,
                            std::span<int8_t> codes) const {
  static const FitGroup kFit = fit_group();
  const auto size = static_cast<size_t>(group_);
  for (size_t begin = 0; begin < row.size(); begin += size) {
    const std::span<const float> values = row.subspan(begin, size);
    const size_t index = begin / size;
    // By each column alone first, then clipped more and less.
    const float start = kFit(values.data(), &importance_[begin], size);
    float best = as_stored(start);
    double least = error_of(values, index, best);
    for (int step = -6; step <= 6; ++step) {
      const float scale = as_stored(start * (1.0F + 0.04F * static_cast<float>(step)));
      const double error = error_of(values, index, scale);
      if (!(error < least)) continue;
      least = error;
      best = scale;
    }
    group_scales[index] = to_bfloat16(best);
    const float inverse = best > 0.0F ? 1.0F / best : 0.0F;
    for (size_t i = 0; i < size; ++i) {
      codes[begin + i] =
          static_cast<int8_t>(std::nearbyint(std::clamp(values[i] * inverse, -8.0F, 7.0F)));
    }
  }
}

}  // namespace puna::quant
