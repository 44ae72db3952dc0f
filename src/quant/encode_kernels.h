// SPDX-License-Identifier: Apache-2.0
// The encoders with a search, one per instruction set, all with the same bits. Internal to quant.
#pragma once

#include <cstddef>

#include "formats/tensor_type.h"

namespace puna::quant {

// Encodes `count` blocks of `type`, one of Q4_0 ... Q8_0, IQ4_NL and the K types. `importance` is
// null or has one number per value.
using EncodeBlocks = void (*)(formats::TensorType type, const float* values,
                              const float* importance, size_t count, std::byte* blocks);

void encode_blocks_generic(formats::TensorType type, const float* values, const float* importance,
                           size_t count, std::byte* blocks);
void encode_blocks_avx2(formats::TensorType type, const float* values, const float* importance,
                        size_t count, std::byte* blocks);
void encode_blocks_avx512(formats::TensorType type, const float* values, const float* importance,
                          size_t count, std::byte* blocks);

// The scale > 0 with which `count` (32, 64 or 128) values lose least as codes -8 ... 7.
using FitGroup = float (*)(const float* values, const float* importance, size_t count);

float fit_group_generic(const float* values, const float* importance, size_t count);
float fit_group_avx2(const float* values, const float* importance, size_t count);
float fit_group_avx512(const float* values, const float* importance, size_t count);

// The fastest that this CPU runs.
EncodeBlocks encode_blocks();
FitGroup fit_group();

}  // namespace puna::quant
