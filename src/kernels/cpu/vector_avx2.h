// SPDX-License-Identifier: Apache-2.0
// Eight floats in an AVX register (AVX2, FMA and F16C): the vocabulary of micro_body.h and
// decode_body.h. Included by micro_avx2.cc alone; everything has internal linkage (see
// micro_kernels.h).
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace puna::kernels {
namespace {

struct Vector {
  static constexpr int kWidth = 8;
  static constexpr int kTileM = 4;  // 4 x 3 accumulators + 3 weights + 1 activation = 16 registers
  static constexpr int kTileN = 3;
  using Reg = __m256;

  static Reg zero() { return _mm256_setzero_ps(); }
  static Reg set(float value) { return _mm256_set1_ps(value); }
  static Reg load(const float* from) { return _mm256_loadu_ps(from); }
  static void store(float* to, Reg value) { _mm256_storeu_ps(to, value); }
  static Reg add(Reg a, Reg b) { return _mm256_add_ps(a, b); }
  static Reg sub(Reg a, Reg b) { return _mm256_sub_ps(a, b); }
  static Reg mul(Reg a, Reg b) { return _mm256_mul_ps(a, b); }
  static Reg div(Reg a, Reg b) { return _mm256_div_ps(a, b); }
  static Reg fma(Reg a, Reg b, Reg c) { return _mm256_fmadd_ps(a, b, c); }
  static Reg max(Reg a, Reg b) { return _mm256_max_ps(a, b); }
  static Reg min(Reg a, Reg b) { return _mm256_min_ps(a, b); }
  static Reg round(Reg a) {
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  // a * 2^n, n integral in [-126, 127].
  static Reg scale_by_power(Reg a, Reg n) {
    const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
  }
  // a where x >= limit, else 0.
  static Reg keep_if_at_least(Reg a, Reg x, Reg limit) {
    return _mm256_and_ps(a, _mm256_cmp_ps(x, limit, _CMP_GE_OQ));
  }
  // `inside` in the first `count` lanes, `outside` in the others.
  static Reg first(int64_t count, Reg inside, Reg outside) {
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const auto limit = static_cast<int32_t>(count > 8 ? 8 : count);
    const __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(limit), lanes);
    return _mm256_blendv_ps(outside, inside, _mm256_castsi256_ps(mask));
  }
  // Lane i with lane i + 4.
  static __m128 fold(Reg a) {
    return _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  }
  static Reg from_half(const uint16_t* half) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(half)));
  }
  static void to_half(uint16_t* half, Reg value) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(half),
                     _mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
  }
  static Reg from_bfloat16(const uint16_t* bits) {
    const __m256i wide =
        _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bits)));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
  }
  // Bytes 0 … 15 as floats; part p holds bytes p * kWidth …
  template <int kPart>
  static Reg from_u8(__m128i bytes) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(bytes, kPart * 8)));
  }
  template <int kPart>
  static Reg from_s8(__m128i bytes) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(bytes, kPart * 8)));
  }
};

}  // namespace
}  // namespace puna::kernels
