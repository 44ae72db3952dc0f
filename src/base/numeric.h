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

constexpr Float16 to_float16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000U);
  const uint32_t magnitude = bits & 0x7FFFFFFFU;
  if (magnitude > 0x7F800000U) return {static_cast<uint16_t>(sign | 0x7E00U)};
  if (magnitude >= 0x477FF000U)
    return {static_cast<uint16_t>(sign | 0x7C00U)};  // >= 65520 rounds to infinity
  if (magnitude >= 0x38800000U) {                    // normal: >= 2^-14
    const uint32_t rounded = magnitude + 0xFFFU + ((magnitude >> 13) & 1U);
    return {static_cast<uint16_t>(sign | ((rounded - 0x38000000U) >> 13))};
  }
  // Subnormal: adding 0.5 lets the FPU's own rounding place the 10 bits (ulp of 0.5 is 2^-24).
  const float shifted = std::bit_cast<float>(magnitude) + 0.5F;
  return {static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3F000000U))};
}

}  // namespace puna
