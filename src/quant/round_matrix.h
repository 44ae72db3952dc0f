// SPDX-License-Identifier: Apache-2.0
// A matrix into the codes and scales of a compressed-tensors folder, row by row on several threads.
// How a row is rounded is one function per method: to the nearest in any scheme, or by GPTQ or AWQ
// in W4A16.
//
//   const RoundRow by = round_to_nearest(FolderScheme::kW4A16, 128, importance);
//   ASSIGN_OR_RETURN(RoundedMatrix matrix,
//                    round_matrix(checkpoint, id, FolderScheme::kW4A16, 128, by, 4));
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/numeric.h"
#include "base/result.h"
#include "formats/checkpoint.h"
#include "quant/awq_layer.h"
#include "quant/folder_scheme.h"
#include "quant/gptq.h"

namespace puna::quant {

// The bytes of a row, in the order of the file. Codes: one byte each, or two int4 in a byte, which
// is zero before.
struct RowBytes {
  std::span<std::byte> codes;
  std::span<BFloat16> scales;
};

// Rounds a row, whose values it may use up. Returns the sum of squared errors. Any number of
// threads at once.
using RoundRow = std::function<double(int64_t row, std::span<float> values, RowBytes out)>;

// `group`: columns that share a scale, in W4A16. `importance`: of the columns, or null; int4 alone
// knows it. It must outlive the result, and so must `layer` and `products` below.
RoundRow round_to_nearest(FolderScheme scheme, int64_t group, const std::vector<float>* importance);
RoundRow round_by_gptq(std::shared_ptr<const GptqFactor> factor, int64_t group);
RoundRow round_by_awq(const AwqLayer& layer, formats::WeightRole role,
                      std::span<const float> products, int64_t group);

struct RoundedMatrix {
  std::vector<std::byte> codes;
  std::vector<BFloat16> scales;
  double squares = 0.0;
  double squared_errors = 0.0;
};

// Errors: kCorrupt when a weight is not finite.
Result<RoundedMatrix> round_matrix(const formats::Checkpoint& checkpoint, formats::WeightId id,
                                   FolderScheme scheme, int64_t group, const RoundRow& round_row,
                                   int32_t threads);

}  // namespace puna::quant
