// SPDX-License-Identifier: Apache-2.0
// Encoders for the types that Puna writes: F32, F16, BF16, Q8_0, Q4_0, Q4_1. They choose the scales
// as ggml's reference does and give the same bytes as the `gguf` Python package, for finite values.
// Values that are not finite give some block, never undefined behaviour.
//
//   std::vector<std::byte> blocks(*formats::tensor_bytes(type, values.size()));
//   encode(type, values, blocks);
#pragma once

#include <cstddef>
#include <span>

#include "formats/tensor_type.h"

namespace puna::quant {

bool can_encode(formats::TensorType type);

// `values` are whole blocks and `blocks` has exactly their bytes; can_encode(type) (all CHECKed).
void encode(formats::TensorType type, std::span<const float> values, std::span<std::byte> blocks);

}  // namespace puna::quant
