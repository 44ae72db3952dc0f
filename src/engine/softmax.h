// SPDX-License-Identifier: Apache-2.0
// exp and sums over a vocabulary, in an order that depends on the vocabulary's size alone: chunks
// of kSumChunk values, each summed in kSumLanes fixed lanes and a fixed tree, then the chunks in
// double from first to last. The same bits on every machine, whatever vector width the compiler
// picks. Arrays are padded to whole chunks; the padding holds -inf (values) or 0 (probabilities).
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

namespace puna::engine {

inline constexpr size_t kSumChunk = 256;
inline constexpr size_t kSumLanes = 16;
inline constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

constexpr size_t padded_to_chunks(size_t count) {
  return (count + kSumChunk - 1) / kSumChunk * kSumChunk;
}

// e^x for x <= 0, relative error below 2e-7; 0 below -87 (where the result is no normal float).
// x = n ln2 + r with |r| <= ln2 / 2 (ln2 in two parts, so that n ln2 is exact), then the Taylor
// series: the first term left out is r^8 / 8! < 6e-9.
inline float exp_of_nonpositive(float x) {
  const float clamped = x < -87.0F ? -87.0F : x;
  constexpr float kRoundToInteger = 12582912.0F;  // 1.5 * 2^23: adding it drops the fraction
  const float shifted = clamped * 1.44269504F + kRoundToInteger;
  const float n = shifted - kRoundToInteger;
  const float r = (clamped - n * 0.693359375F) - n * -2.12194440e-4F;
  float sum = 1.0F / 5040;
  sum = sum * r + 1.0F / 720;
  sum = sum * r + 1.0F / 120;
  sum = sum * r + 1.0F / 24;
  sum = sum * r + 1.0F / 6;
  sum = sum * r + 0.5F;
  sum = sum * r + 1.0F;
  sum = sum * r + 1.0F;
  const float power_of_two = std::bit_cast<float>((static_cast<int32_t>(n) + 127) << 23);
  return x < -87.0F ? 0.0F : sum * power_of_two;
}

// probabilities[i] = e^values[i] for one chunk.
inline void exp_chunk(const float* values, float* probabilities) {
  for (size_t i = 0; i < kSumChunk; ++i) probabilities[i] = exp_of_nonpositive(values[i]);
}

inline float sum_chunk(const float* values) {
  float lanes[kSumLanes] = {};
  for (size_t row = 0; row < kSumChunk; row += kSumLanes) {
    for (size_t lane = 0; lane < kSumLanes; ++lane) lanes[lane] += values[row + lane];
  }
  for (size_t width = kSumLanes / 2; width > 0; width /= 2) {
    for (size_t lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
  }
  return lanes[0];
}

// The largest value of one chunk; NaN counts as -inf.
inline float max_chunk(const float* values) {
  float lanes[kSumLanes];
  for (float& lane : lanes) lane = kMinusInfinity;
  for (size_t row = 0; row < kSumChunk; row += kSumLanes) {
    for (size_t lane = 0; lane < kSumLanes; ++lane) {
      lanes[lane] = values[row + lane] > lanes[lane] ? values[row + lane] : lanes[lane];
    }
  }
  float largest = lanes[0];
  for (float lane : lanes) largest = lane > largest ? lane : largest;
  return largest;
}

}  // namespace puna::engine
