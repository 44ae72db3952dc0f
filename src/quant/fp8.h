// SPDX-License-Identifier: Apache-2.0
// fp8 e4m3 ("fn"): sign, four bits of exponent (bias 7), three of mantissa; the largest is 448,
// 0x7F and 0xFF are NaN, there is no infinity. Source: the OCP 8-bit floating point specification.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace puna::quant {

inline float fp8_value(uint8_t code) {
  const int exponent = code >> 3 & 15;
  const int mantissa = code & 7;
  if (exponent == 15 && mantissa == 7) return std::nanf("");
  const float magnitude = exponent == 0
                              ? std::ldexp(static_cast<float>(mantissa), -9)
                              : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
  return (code & 0x80) != 0 ? -magnitude : magnitude;
}

// To nearest, ties to even; what is larger than 448 becomes 448, NaN stays NaN.
inline uint8_t to_fp8(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint8_t>(bits >> 24 & 0x80);
  const float magnitude = std::fabs(value);
  if (std::isnan(value)) return static_cast<uint8_t>(sign | 0x7F);
  if (magnitude >= 448.0F) return static_cast<uint8_t>(sign | 0x7E);
  if (magnitude < 0x1p-6F) {  // subnormal: multiples of 2^-9; eight of them are the first normal
    return static_cast<uint8_t>(sign | static_cast<uint8_t>(std::nearbyint(magnitude * 512.0F)));
  }
  const uint32_t absolute = bits & 0x7FFFFFFFU;
  const uint32_t rounded = absolute + 0x7FFFFU + (absolute >> 20 & 1U);
  const uint32_t code = (rounded >> 20) - (120U << 3);
  return static_cast<uint8_t>(sign | (code > 0x7EU ? 0x7EU : code));
}

}  // namespace puna::quant
