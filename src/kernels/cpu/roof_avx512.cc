// SPDX-License-Identifier: Apache-2.0
#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 warns inside its own _mm512_extractf64x4_pd.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include "kernels/cpu/roof_kernels.h"

namespace puna::kernels {
namespace {

constexpr int kChains = 16;
constexpr double kLanes = 16;  // 32-bit sums in a register
// Two kilobytes ahead of the loads: further than the hardware's own prefetcher looks when a page
// ends.
constexpr int64_t kPrefetchBytes = 2048;

// The compiler must take `value` as unknown, so chains can't be merged and inputs not folded.
template <typename T>
T opaque(T value) {
  asm volatile("" : "+v"(value));
  return value;
}

double sum_of(const __m512i* sums) {
  __m512i total = _mm512_setzero_si512();
  for (int i = 0; i < kChains; ++i) total = _mm512_add_epi32(total, sums[i]);
  return static_cast<double>(_mm512_reduce_add_epi32(total));
}

double sum_of(const __m512* sums) {
  __m512 total = _mm512_setzero_ps();
  for (int i = 0; i < kChains; ++i) total = _mm512_add_ps(total, sums[i]);
  return static_cast<double>(_mm512_reduce_add_ps(total));
}

double int8_dots(int64_t rounds) {
  const __m512i a = opaque(_mm512_set1_epi8(1));
  const __m512i b = opaque(_mm512_set1_epi8(1));
  __m512i sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = opaque(_mm512_setzero_si512());
  for (int64_t round = 0; round < rounds; ++round) {
    for (int i = 0; i < kChains; ++i) sums[i] = _mm512_dpbusd_epi32(sums[i], a, b);
  }
  return sum_of(sums);
}

__attribute__((target("avx512bf16"))) double bf16_dots(int64_t rounds) {
  const auto a = (__m512bh)opaque(_mm512_set1_epi16(0x3C00));
  const auto b = (__m512bh)opaque(_mm512_set1_epi16(0x3C00));
  __m512 sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = opaque(_mm512_setzero_ps());
  for (int64_t round = 0; round < rounds; ++round) {
    for (int i = 0; i < kChains; ++i) sums[i] = _mm512_dpbf16_ps(sums[i], a, b);
  }
  return sum_of(sums);
}

double f32_multiply_adds(int64_t rounds) {
  const __m512 a = opaque(_mm512_set1_ps(0.01F));
  const __m512 b = opaque(_mm512_set1_ps(0.01F));
  __m512 sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = opaque(_mm512_setzero_ps());
  for (int64_t round = 0; round < rounds; ++round) {
    for (int i = 0; i < kChains; ++i) sums[i] = _mm512_fmadd_ps(a, b, sums[i]);
  }
  return sum_of(sums);
}

uint64_t read(const std::byte* data, int64_t bytes) {
  constexpr int kLoads = 8;
  constexpr int64_t kLine = 64;
  __m512i seen[kLoads] = {};
  for (int64_t at = 0; at < bytes; at += kLoads * kLine) {
    for (int i = 0; i < kLoads; ++i) {
      const std::byte* line = data + at + i * kLine;
      _mm_prefetch(reinterpret_cast<const char*>(line + kPrefetchBytes), _MM_HINT_T1);
      seen[i] = _mm512_xor_si512(seen[i], _mm512_load_si512(line));
    }
  }
  for (int i = 1; i < kLoads; ++i) seen[0] = _mm512_xor_si512(seen[0], seen[i]);
  return static_cast<uint64_t>(_mm512_reduce_add_epi64(seen[0]));
}

constexpr RoofKernels kAvx512 = {.int8 = {int8_dots, kChains* kLanes * 4 * 2},
                                 .bf16 = {},
                                 .f32 = {f32_multiply_adds, kChains* kLanes * 2},
                                 .read = read};
constexpr RoofKernels kAvx512Bf16 = {.int8 = {int8_dots, kChains* kLanes * 4 * 2},
                                     .bf16 = {bf16_dots, kChains* kLanes * 2 * 2},
                                     .f32 = {f32_multiply_adds, kChains* kLanes * 2},
                                     .read = read};

}  // namespace

const RoofKernels& avx512_roof_kernels() { return kAvx512; }
const RoofKernels& avx512_bf16_roof_kernels() { return kAvx512Bf16; }

}  // namespace puna::kernels
