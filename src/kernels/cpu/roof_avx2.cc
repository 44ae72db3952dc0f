// SPDX-License-Identifier: Apache-2.0
#include <immintrin.h>

#include "kernels/cpu/roof_kernels.h"

namespace puna::kernels {
namespace {

constexpr int kChains = 12;   // of 16 registers
constexpr double kLanes = 8;  // 32-bit sums in a register
constexpr int64_t kPrefetchBytes = 2048;

// The compiler must take `value` as unknown, so chains can't be merged and inputs not folded.
template <typename T>
T opaque(T value) {
  asm volatile("" : "+x"(value));
  return value;
}

// Without VNNI: pairs of products added in 16 bits. The sum goes back in as a factor, so that each
// multiplication depends on the one before it in its chain.
double int8_dots(int64_t rounds) {
  const __m256i a = opaque(_mm256_set1_epi8(1));
  __m256i sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = opaque(_mm256_setzero_si256());
  for (int64_t round = 0; round < rounds; ++round) {
    for (int i = 0; i < kChains; ++i) {
      sums[i] = _mm256_add_epi16(sums[i], _mm256_maddubs_epi16(a, sums[i]));
    }
  }
  __m256i total = _mm256_setzero_si256();
  for (int i = 0; i < kChains; ++i) total = _mm256_add_epi16(total, sums[i]);
  return static_cast<double>(_mm256_extract_epi32(total, 0));
}

double f32_multiply_adds(int64_t rounds) {
  const __m256 a = opaque(_mm256_set1_ps(0.01F));
  const __m256 b = opaque(_mm256_set1_ps(0.01F));
  __m256 sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = opaque(_mm256_setzero_ps());
  for (int64_t round = 0; round < rounds; ++round) {
    for (int i = 0; i < kChains; ++i) sums[i] = _mm256_fmadd_ps(a, b, sums[i]);
  }
  __m256 total = _mm256_setzero_ps();
  for (int i = 0; i < kChains; ++i) total = _mm256_add_ps(total, sums[i]);
  return static_cast<double>(_mm256_cvtss_f32(total));
}

uint64_t read(const std::byte* data, int64_t bytes) {
  constexpr int kLoads = 8;
  constexpr int64_t kHalfLine = 32;
  __m256i seen[kLoads] = {};
  for (int64_t at = 0; at < bytes; at += kLoads * kHalfLine) {
    for (int i = 0; i < kLoads; ++i) {
      const std::byte* half = data + at + i * kHalfLine;
      if (i % 2 == 0) {
        _mm_prefetch(reinterpret_cast<const char*>(half + kPrefetchBytes), _MM_HINT_T0);
      }
      seen[i] =
          _mm256_xor_si256(seen[i], _mm256_load_si256(reinterpret_cast<const __m256i*>(half)));
    }
  }
  for (int i = 1; i < kLoads; ++i) seen[0] = _mm256_xor_si256(seen[0], seen[i]);
  return static_cast<uint64_t>(_mm256_extract_epi64(seen[0], 0) ^ _mm256_extract_epi64(seen[0], 1) ^
                               _mm256_extract_epi64(seen[0], 2) ^ _mm256_extract_epi64(seen[0], 3));
}

// A maddubs makes 32 products and 16 sums of two.
constexpr RoofKernels kAvx2 = {.int8 = {int8_dots, kChains* kLanes * 4 * 2},
                               .bf16 = {},
                               .f32 = {f32_multiply_adds, kChains* kLanes * 2},
                               .read = read};

}  // namespace

const RoofKernels& avx2_roof_kernels() { return kAvx2; }

}  // namespace puna::kernels
