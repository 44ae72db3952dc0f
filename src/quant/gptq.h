// SPDX-License-Identifier: Apache-2.0
// GPTQ: the codes of a row one column after another, each column's rounding error spread over the
// columns behind it so that the layer's outputs change least on the calibration text. Source:
// Frantar et al., "GPTQ", arXiv 2210.17323; the factor by a reversed Cholesky decomposition.
//
//   ASSIGN_OR_RETURN(GptqFactor factor, GptqFactor::of(std::move(products), columns));
//   factor.round_row(row, {.group = 128}, scales, codes);   // any number of threads
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/numeric.h"
#include "base/result.h"

namespace puna::quant {

class GptqFactor {
 public:
  // `products`: sums of x[i] * x[j] over the inputs x of the layer, [columns, columns], the lower
  // triangle alone is read. One per cent of the mean diagonal is added to it. Errors: kCorrupt when
  // it is no matrix of such sums.
  static Result<GptqFactor> of(std::vector<float> products, int64_t columns);

  // Rounds `row` to codes -8 ... 7 times a bfloat16 scale per `group` columns (32, 64 or 128, which
  // divides the columns). `row` is used up. scales: [columns / group], codes: [columns].
  void round_row(std::span<float> row, int64_t group, std::span<BFloat16> scales,
                 std::span<int8_t> codes) const;

  int64_t columns() const { return columns_; }

 private:
  int64_t columns_ = 0;
  std::vector<float> upper_;       // U of H^-1 = U^T * U, [columns, columns], upper triangle
  std::vector<float> importance_;  // the diagonal of H, for the scales
};

}  // namespace puna::quant
