// SPDX-License-Identifier: Apache-2.0
// The encoders with a search, reading F16 and AWQ's sums, one per instruction set, all with the
// same bits. Internal to quant.
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

// `count` float16, of any alignment, as to_float() has them.
using DecodeHalves = void (*)(const std::byte* halves, size_t count, float* out);

void decode_halves_generic(const std::byte* halves, size_t count, float* out);
void decode_halves_avx2(const std::byte* halves, size_t count, float* out);
void decode_halves_avx512(const std::byte* halves, size_t count, float* out);

// For sixteen vectors e of n numbers, [n][16], one in each lane: e^T * H * e. Of the symmetric H
// the lower triangle is read, whose rows are `stride` apart; n is a multiple of 4.
using QuadraticForms = void (*)(const float* h, size_t stride, size_t n, const float* vectors,
                                double* forms);

void quadratic_forms_generic(const float* h, size_t stride, size_t n, const float* vectors,
                             double* forms);
void quadratic_forms_avx2(const float* h, size_t stride, size_t n, const float* vectors,
                          double* forms);
void quadratic_forms_avx512(const float* h, size_t stride, size_t n, const float* vectors,
                            double* forms);

// The fastest that this CPU runs.
EncodeBlocks encode_blocks();
FitGroup fit_group();
DecodeHalves decode_halves();
QuadraticForms quadratic_forms();

}  // namespace puna::quant
