// SPDX-License-Identifier: Apache-2.0
// Sixteen floats in an AVX-512 register: the vocabulary of micro_body.h and decode_body.h. Included
// by micro_avx512.cc alone; everything has internal linkage (see micro_kernels.h).
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace puna::kernels {
namespace {

struct Vector {
  static constexpr int kWidth = 16;
  static constexpr int kTileM =
      4;  // 4 x 6 accumulators + 6 weights + 1 activation = 31 of 32 registers
  static constexpr int kTileN = 6;
  using Reg = __m512;

  static Reg zero() { return _mm512_setzero_ps(); }
  static Reg set(float value) { return _mm512_set1_ps(value); }
  static Reg load(const float* from) { return _mm512_loadu_ps(from); }
  static void store(float* to, Reg value) { _mm512_storeu_ps(to, value); }
  static Reg add(Reg a, Reg b) { return _mm512_add_ps(a, b); }
  static Reg sub(Reg a, Reg b) { return _mm512_sub_ps(a, b); }
  static Reg mul(Reg a, Reg b) { return _mm512_mul_ps(a, b); }
  static Reg div(Reg a, Reg b) { return _mm512_div_ps(a, b); }
  static Reg fma(Reg a, Reg b, Reg c) { return _mm512_fmadd_ps(a, b, c); }
  static Reg max(Reg a, Reg b) { return _mm512_max_ps(a, b); }
  static Reg min(Reg a, Reg b) { return _mm512_min_ps(a, b); }
  static Reg round(Reg a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT); }
  // a * 2^n, n integral; 0 where a * 2^n underflows.
  static Reg scale_by_power(Reg a, Reg n) { return _mm512_scalef_ps(a, n); }
  // a where x >= limit, else 0.
  static Reg keep_if_at_least(Reg a, Reg x, Reg limit) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, limit, _CMP_GE_OQ), a);
  }
  // `inside` in the first `count` lanes, `outside` in the others.
  static Reg first(int64_t count, Reg inside, Reg outside) {
    const auto mask =
        static_cast<__mmask16>(count >= 16 ? 0xFFFF : (1 << (count < 0 ? 0 : count)) - 1);
    return _mm512_mask_mov_ps(outside, mask, inside);
  }
  // Lane i with lane i + 8, then with i + 4.
  static __m128 fold(Reg a) {
    const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  }
  static Reg from_half(const uint16_t* half) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(half)));
  }
  static void to_half(uint16_t* half, Reg value) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(half),
                        _mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
  }
  static Reg from_bfloat16(const uint16_t* bits) {
    const __m512i wide =
        _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(bits)));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
  }
  // Bytes 0 … 15 as floats; part p holds bytes p * kWidth …
  template <int kPart>
  static Reg from_u8(__m128i bytes) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
  }
  template <int kPart>
  static Reg from_s8(__m128i bytes) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
  }
};

}  // namespace
}  // namespace puna::kernels
