// SPDX-License-Identifier: Apache-2.0
#include "quant/awq.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <utility>

#include "base/check.h"
#include "quant/encode_kernels.h"
#include "quant/run_on_threads.h"

namespace puna::quant {
namespace {

constexpr int kSteps = 20;                // of alpha, from 0 to 1
constexpr float kLeastMagnitude = 1e-4F;  // of the largest; columns that nothing reaches
constexpr size_t kTogether = 16;          // errors that quadratic_forms() takes
// Of a group's clipping: as fitted at kAsFitted, then less and more.
constexpr float kClipStep = 0.04F;
constexpr size_t kAsFitted = 8;

// As nearbyint() has it, for the compiler's vectors: in a sum of this size only whole numbers are
// left.
float nearest_code(float value) {
  constexpr float kWholeNumbers = 12582912.0F;  // 1.5 * 2^23
  value = value > -8.0F ? value : -8.0F;        // NaN too
  value = value < 7.0F ? value : 7.0F;
  return (value + kWholeNumbers) - kWholeNumbers;
}

float inverse_scale(float scale) { return scale > 0.0F ? 1.0F / scale : 0.0F; }

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

// What rounding the scaled row changes in the unscaled one: errors[column * kTogether].
void errors_of_row(std::span<const float> row, std::span<const float> scales,
                   std::span<const float> importance, size_t group, std::vector<float>& scaled,
                   float* errors) {
  static const FitGroup kFit = fit_group();
  for (size_t i = 0; i < row.size(); ++i) scaled[i] = row[i] * scales[i];
  for (size_t begin = 0; begin < row.size(); begin += group) {
    const float scale = as_stored(kFit(&scaled[begin], &importance[begin], group));
    const float inverse = inverse_scale(scale);
    for (size_t i = begin; i < begin + group; ++i) {
      errors[i * kTogether] = (scaled[i] - scale * nearest_code(scaled[i] * inverse)) / scales[i];
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
  static const QuadraticForms kForms = quadratic_forms();
  std::vector<double> totals((rows + kTogether - 1) / kTogether);
  std::atomic<size_t> next{0};
  run_on_threads(threads, [&] {
    std::vector<float> errors(columns * kTogether);
    std::vector<float> scaled(columns);
    for (size_t piece = next++; piece < totals.size(); piece = next++) {
      const size_t first = piece * kTogether;
      const size_t count = std::min(rows - first, kTogether);
      std::fill(errors.begin(), errors.end(), 0.0F);
      for (size_t i = 0; i < count; ++i) {
        errors_of_row(std::span(inputs.rows).subspan((first + i) * columns, columns), scales,
                      importance, static_cast<size_t>(group), scaled, &errors[i]);
      }
      double forms[kTogether];
      kForms(inputs.products.data(), columns, columns, errors.data(), forms);
      for (const double form : forms) totals[piece] += form;
    }
  });
  double total = 0.0;
  for (const double piece : totals) total += piece;
  return total;
}

// The error is smooth in alpha: every fourth step first, then around the best.
std::vector<float> search_awq_scales(const AwqInputs& inputs, int64_t group, int32_t threads) {
  const std::vector<float> of_inputs = magnitudes(inputs);
  std::vector<float> best(of_inputs.size(), 1.0F);
  double least = awq_output_error(inputs, best, group, threads);
  int best_step = 0;
  const auto consider = [&](int step) {
    if (step <= 0 || step > kSteps) return;
    std::vector<float> scales =
        scales_of(of_inputs, static_cast<float>(step) / static_cast<float>(kSteps));
    const double error = awq_output_error(inputs, scales, group, threads);
    if (!(error < least)) return;
    least = error;
    best = std::move(scales);
    best_step = step;
  };
  for (int step = 4; step <= kSteps; step += 4) consider(step);
  for (const int width : {2, 1}) {
    const int middle = best_step;
    consider(middle - width);
    consider(middle + width);
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
        products_[(begin + i) * size + j] =
            products[(begin + i) * columns + begin + j] / (scales[begin + i] * scales[begin + j]);
      }
    }
  }
}

float AwqRounding::best_scale(std::span<const float> values, size_t group_index) const {
  static const FitGroup kFit = fit_group();
  static const QuadraticForms kForms = quadratic_forms();
  const size_t size = values.size();
  // By each column alone first, then clipped less and more.
  const float fitted = kFit(values.data(), &importance_[group_index * size], size);
  float scales[kTogether];
  float inverses[kTogether];
  for (size_t lane = 0; lane < kTogether; ++lane) {
    const float step = static_cast<float>(lane) - static_cast<float>(kAsFitted);
    scales[lane] = as_stored(fitted * (1.0F + kClipStep * step));
    inverses[lane] = inverse_scale(scales[lane]);
  }
  float errors[128 * kTogether];
  for (size_t i = 0; i < size; ++i) {
    for (size_t lane = 0; lane < kTogether; ++lane) {
      const float code = nearest_code(values[i] * inverses[lane]);
      errors[i * kTogether + lane] = values[i] - scales[lane] * code;
    }
  }
  double forms[kTogether];
  kForms(&products_[group_index * size * size], size, size, errors, forms);
  size_t best = kAsFitted;
  for (size_t lane = 0; lane < kTogether; ++lane) {
    if (forms[lane] < forms[best]) best = lane;
  }
  return scales[best];
}

void AwqRounding::round_row(std::span<const float> row, std::span<BFloat16> group_scales,
                            std::span<int8_t> codes) const {
  const auto size = static_cast<size_t>(group_);
  for (size_t begin = 0; begin < row.size(); begin += size) {
    const float scale = best_scale(row.subspan(begin, size), begin / size);
    group_scales[begin / size] = to_bfloat16(scale);
    const float inverse = inverse_scale(scale);
    for (size_t i = begin; i < begin + size; ++i) {
      codes[i] = static_cast<int8_t>(nearest_code(row[i] * inverse));
    }
  }
}

}  // namespace puna::quant
