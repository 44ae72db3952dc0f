// SPDX-License-Identifier: Apache-2.0
// Encoders for every type but IQ4_XS. F32, F16, BF16 and Q8_0 are rounded as the `gguf` Python
// package does it, byte for byte. The others are searched: scales, minima and codes that minimise
// sum of w * (x - decoded)^2 over a block, where w is importance * sqrt(mean square + x^2); without
// importance some types look less closely, for speed. Every instruction set gives the same bytes.
// Values that are not finite give some block, never undefined behaviour; callers refuse them
// (quantize_model.h does).
//
//   std::vector<std::byte> blocks(*formats::tensor_bytes(type, row.size()));
//   encode(type, row, blocks, importance_of_columns);
#pragma once

#include <cstddef>
#include <span>

#include "formats/tensor_type.h"

namespace puna::quant {

bool can_encode(formats::TensorType type);

// `values` are whole blocks and `blocks` has exactly their bytes; can_encode(type) (all CHECKed).
// `importance`: empty, or one number >= 0 per value, of which only the ratios within a block count.
void encode(formats::TensorType type, std::span<const float> values, std::span<std::byte> blocks,
            std::span<const float> importance = {});

}  // namespace puna::quant
