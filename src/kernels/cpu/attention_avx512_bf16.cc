// SPDX-License-Identifier: Apache-2.0
// AVX-512 with VDPBF16PS: adds the products of 16 bf16 pairs to 16 f32 sums.
#include "kernels/cpu/attention_avx512.inc"
// The vocabulary comes first: the body is written over it.
#include "kernels/cpu/attention_body.inc"

namespace puna::kernels {
namespace {

// bf16 pairs in the cache, factors rounded to bf16.
struct PairElement {
  static constexpr int64_t kPerStep = 2;
  static constexpr int64_t kFactorBytes = 4;
  static constexpr int kColumns = Lanes::kColumns;
  using Weights = __m512i;
  using Factor = __m512i;
  static Weights load(const std::byte* from) { return Lanes::load_bits(from); }
  static Weights load_even(const std::byte* from) { return Lanes::even_only(load(from)); }
  static Factor factor(const std::byte* from) {
    int32_t pair = 0;
    std::memcpy(&pair, from, sizeof pair);
    return _mm512_set1_epi32(pair);
  }
  static Col add(Col sum, Weights w, Factor f) {
    return _mm512_dpbf16_ps(sum, (__m512bh)w, (__m512bh)f);
  }
  static void store_factors(Col values, std::byte* to) {
    const __m256bh narrow = _mm512_cvtneps_pbh(values);
    std::memcpy(to, &narrow, sizeof narrow);
  }
};

}  // namespace

const AttentionKernels& avx512_bf16_attention_kernels() {
  static constexpr AttentionKernels kKernels = attention_kernels<PairElement>();
  return kKernels;
}

}  // namespace puna::kernels
