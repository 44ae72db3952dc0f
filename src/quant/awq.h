// SPDX-License-Identifier: Apache-2.0
// AWQ: before rounding, columns whose inputs are large are multiplied by a scale, and whatever
// makes those inputs is divided by it: the product stays, and the columns that matter are rounded
// more finely. The scales are magnitude^alpha; alpha is the one of a grid with which the matrices
// that read the inputs change their outputs least. Source: Lin et al., "AWQ", arXiv 2306.00978.
//
//   const std::vector<float> scales = search_awq_scales({products, columns, {}, rows}, 128, 4);
//   const AwqRounding rounding(products, scales, 128);
//   rounding.round_row(scaled_row, group_scales, codes);   // any number of threads
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/numeric.h"

namespace puna::quant {

// Matrices that read the same inputs.
struct AwqInputs {
  std::span<const float> products;  // sums of x[i] * x[j], [columns, columns], the lower triangle
  int64_t columns = 0;
  // Columns with the same number get the same scale, since one row of the matrix in front makes
  // them all (a value of grouped attention); none: every column its own.
  std::vector<int32_t> made_by;
  std::vector<float> rows;  // of those matrices, all or a sample, [count, columns]
};

// Scales > 0, [columns]; all 1 where nothing does better. `group` as for AwqRounding.
std::vector<float> search_awq_scales(const AwqInputs& inputs, int64_t group, int32_t threads);

// Sum over the inputs of the squares of what rounding changes in the outputs of `inputs.rows`, with
// these scales of the columns: what the search minimises.
double awq_output_error(const AwqInputs& inputs, std::span<const float> scales, int64_t group,
                        int32_t threads);

// Rounds rows that have been multiplied by the scales, each group of 32, 64 or 128 columns clipped
// where its outputs change least.
class AwqRounding {
 public:
  AwqRounding(std::span<const float> products, std::span<const float> scales, int64_t group);

  // To codes -8 ... 7 times a bfloat16 scale per group. group_scales: [columns / group], codes:
  // [columns].
  void round_row(std::span<const float> row, std::span<BFloat16> group_scales,
                 std::span<int8_t> codes) const;

 private:
  // As a bfloat16 holds it.
  float best_scale(std::span<const float> values, size_t group_index) const;

  const int64_t group_;
  // Of each group's scaled inputs, [columns / group, group, group], the lower triangles.
  std::vector<float> products_;
  std::vector<float> importance_;  // their diagonal, [columns]
};

}  // namespace puna::quant
