// SPDX-License-Identifier: Apache-2.0
// The encoders with a search, one per instruction set, all with the same bits. Internal to quant.
#pragma once

#include <cstddef>

#include "formats/tensor_type.h"

namespace puna::quant {

// Encodes `count` blocks of `type`, one of Q4_0 ... Q5_1, IQ4_NL and the K types. `importance` is
// null or has one number per value.
using EncodeBlocks = void (*)(formats::TensorType type, const float* values,
                              const float* importance, size_t count, std::byte* blocks);

void encode_blocks_generic(formats::TensorType type, const float* values, const float* importance,
                           size_t count, std::byte* blocks);
void encode_blocks_avx2(formats::TensorType type, const float* values, const float* importance,
                        size_t count, std::byte* blocks);
void encode_blocks_avx512(formats::TensorType type, const float* values, const float* importance,
                          size_t count, std::byte* blocks);

// The fastest that this CPU runs.
EncodeBlocks encode_blocks();

}  // namespace puna::quant
