// SPDX-License-Identifier: Apache-2.0
// Passes over the logits of a vocabulary: maxima, exp, sums, cuts. In an order that depends on the
// vocabulary's size alone: chunks of kSumChunk values, each summed in kSumLanes fixed lanes and a
// fixed tree, then the chunks in double from first to last. The same bits on every machine: the one
// body (softmax_body.inc) is compiled for several instruction sets and fuses no operations.
//
//   const SoftmaxPasses& passes = softmax_passes("");       // the best of this CPU
//   passes.exponentials(logits, count, largest, 1.0F, probabilities);
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string_view>

namespace puna::engine {

inline constexpr size_t kSumChunk = 256;
inline constexpr size_t kSumLanes = 16;
inline constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
inline constexpr float kLargestLogit = std::numeric_limits<float>::max();

constexpr size_t chunks_of(size_t count) { return (count + kSumChunk - 1) / kSumChunk; }
constexpr size_t padded_to_chunks(size_t count) { return chunks_of(count) * kSumChunk; }

// The two functions below are always inlined, for a copy of them that is compiled for one
// instruction set must not serve another.

// NaN counts as -inf, and +inf as the largest float.
[[gnu::always_inline]] inline float clean_logit(float logit) {
  const float number = logit == logit ? logit : kMinusInfinity;
  return number < kLargestLogit ? number : kLargestLogit;
}

// e^x for x <= 0, relative error below 2e-7; 0 below -87 (where the result is no normal float).
// x = n ln2 + r with |r| <= ln2 / 2 (ln2 in two parts, so that n ln2 is exact), then the Taylor
// series: the first term left out is r^8 / 8! < 6e-9.
[[gnu::always_inline]] inline float exp_of_nonpositive(float x) {
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
  const float power_of_two = __builtin_bit_cast(float, (static_cast<int32_t>(n) + 127) << 23);
  return x < -87.0F ? 0.0F : sum * power_of_two;
}

// Some tokens together.
struct TokenMass {
  size_t count = 0;
  double probability = 0.0;
};

// `logits` are as the model gave them (clean_logit() applies) and end at `count`; `probabilities`
// are padded with zeros to whole chunks.
struct SoftmaxPasses {
  // maxima[c] = the largest of chunk c.
  void (*chunk_maxima)(const float* logits, size_t count, float* maxima) = nullptr;
  // probabilities[i] = e^((logits[i] - largest) * scale)
  void (*exponentials)(const float* logits, size_t count, float largest, float scale,
                       float* probabilities) = nullptr;
  // sums[c] = the sum of chunk c.
  void (*chunk_sums)(const float* probabilities, size_t chunks, double* sums) = nullptr;
  // The tokens with a logit of at least `floor` (NaN is not).
  TokenMass (*mass_at_least)(const float* logits, size_t count, float floor,
                             const float* probabilities) = nullptr;
  // Clears those with a logit below `last`, and behind `last_id` also those equal to it.
  void (*clear_behind)(const float* logits, size_t count, float last, size_t last_id,
                       float* probabilities) = nullptr;
  // Clears those below `least`.
  void (*clear_below)(float least, size_t chunks, float* probabilities) = nullptr;
};

// For an instruction set as kernels/cpu/isa.h names it; "" is the best of this CPU.
const SoftmaxPasses& softmax_passes(std::string_view isa);

const SoftmaxPasses& scalar_softmax_passes();
#if defined(__x86_64__)
const SoftmaxPasses& avx2_softmax_passes();
const SoftmaxPasses& avx512_softmax_passes();
#endif

}  // namespace puna::engine
