// SPDX-License-Identifier: Apache-2.0
// 16-bit floating-point formats, converted by integer arithmetic: exact, and the same on every CPU.
// float16 is IEEE 754 binary16; bfloat16 is the upper half of a binary32. Conversions to 16 bits
// round to nearest, ties to even; NaN stays NaN.
#pragma once

#include <bit>
#include <cstdint>

namespace puna {

struct Float16 {
  uint16_t bits = 0;
};

struct BFloat16 {
  uint16_t bits = 0;
};

constexpr float to_float(BFloat16 value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value.bits) << 16);
}

constexpr BFloat16 to_bfloat16(float value) {
  uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7FFFFFFFU) > 0x7F800000U) {  // NaN: keep it quiet, keep the sign
    return {static_cast<uint16_t>((bits >> 16) | 0x0040U)};
  }
  bits += 0x7FFFU + ((bits >> 16) & 1U);
  return {static_cast<uint16_t>(bits >> 16)};
}

constexpr float to_float(Float16 value) {
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000U) << 16;
  const uint32_t exponent = (value.bits >> 10) & 0x1FU;
  const uint32_t mantissa = value.bits & 0x3FFU;
  if (exponent == 0x1F) return std::bit_cast<float>(sign | 0x7F800000U | (mantissa << 13));
  if (exponent != 0)
    return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
  // Zero or subnormal: mantissa * 2^-24, exact in binary32.
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24F;
  return sign != 0 ? -magnitude : magnitude;
}

// Without branches, by masks and in signed numbers, so that compilers make vectors of it.
constexpr Float16 to_float16(float value) {
  const auto bits = std::bit_cast<int32_t>(value);
  const int32_t sign = (bits >> 16) & 0x8000;
  const int32_t magnitude = bits & 0x7FFFFFFF;
  const int32_t normal = (magnitude - 0x38000000 + 0xFFF + ((magnitude >> 13) & 1)) >> 13;
  // Adding 0.5 lets the FPU's own rounding place the 10 bits (ulp of 0.5 is 2^-24).
  const float shifted = std::bit_cast<float>(magnitude) + 0.5F;
  const int32_t subnormal = std::bit_cast<int32_t>(shifted) - 0x3F000000;
  const int32_t is_normal = -static_cast<int32_t>(magnitude >= 0x38800000);  // 2^-14
  const int32_t is_nan = -static_cast<int32_t>(magnitude > 0x7F800000);
  const int32_t finite = (normal & is_normal) | (subnormal & ~is_normal);
  const int32_t half = (finite < 0x7C00 ? finite : 0x7C00) | (is_nan & 0x200);  // or infinity
  return {static_cast<uint16_t>(sign | half)};
}

}  // namespace puna
