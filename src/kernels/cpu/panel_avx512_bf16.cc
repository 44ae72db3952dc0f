// SPDX-License-Identifier: Apache-2.0
// bf16 rows times bf16 panels with VDPBF16PS: per element one chain over pairs of k, in order.
#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 warns inside its own intrinsics.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include <array>
#include <cstring>
#include <utility>

#include "kernels/cpu/panel_kernels.h"

namespace puna::kernels {
namespace {

constexpr int64_t kAhead = 4096;  // bytes
constexpr int kRows = 6;          // 6 x 2 sums, 2 weights, an activation
constexpr int kMostRows = 8;      // where nothing is left after them
constexpr int kBases = 3;         // an address reaches three rows: + 0, 1 and 2 strides

inline __m512bh load_pairs(const uint16_t* from) {
  const __m512i bits = _mm512_loadu_si512(from);
  return reinterpret_cast<__m512bh>(bits);
}

// kM rows from `row` on, both panels.
template <int kM>
void block(const Bf16Product& job, int64_t row) {
  __m512 sums[kM][2];
  for (int i = 0; i < kM; ++i) {
    for (int p = 0; p < 2; ++p) {
      sums[i][p] = job.accumulate
                       ? _mm512_loadu_ps(job.c + (row + i) * job.c_stride + p * kPanelColumns)
                       : _mm512_setzero_ps();
    }
  }
  const uint16_t* bases[kBases];
  for (int i = 0; i < kBases; ++i) bases[i] = job.x + (row + 3 * i) * job.x_stride;
  for (int64_t k = 0; k < job.depth; k += 2) {
    __m512bh w[2];
    const uint16_t* from = job.pair + k * kPairColumns;
    for (int p = 0; p < 2; ++p) w[p] = load_pairs(from + p * 2 * kPanelColumns);
    if (row == 0) {
      for (int p = 0; p < 2; ++p)
        _mm_prefetch(reinterpret_cast<const char*>(from) + kAhead + 64 * p, _MM_HINT_T0);
    }
    for (int i = 0; i < kM; ++i) {
      const uint16_t* at = bases[i / 3] + i % 3 * job.x_stride + k;
      int32_t pair = 0;
      std::memcpy(&pair, at, sizeof pair);
      const auto x = reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
      for (int p = 0; p < 2; ++p) sums[i][p] = _mm512_dpbf16_ps(sums[i][p], w[p], x);
    }
  }
  for (int i = 0; i < kM; ++i) {
    for (int p = 0; p < 2; ++p) {
      _mm512_storeu_ps(job.c + (row + i) * job.c_stride + p * kPanelColumns, sums[i][p]);
    }
  }
}

constexpr auto kBlocks = []<int... kIndex>(std::integer_sequence<int, kIndex...>) {
  return std::array{block<kIndex + 1>...};
}
(std::make_integer_sequence<int, kMostRows>());

// Few rows in one pass: memory has nothing to fetch in a second one. Many rows are faster by six.
void bf16_product(const Bf16Product& job) {
  for (int64_t row = 0; row < job.m;) {
    const int64_t left = job.m - row;
    const int64_t rows = left <= kMostRows ? left : left < 2 * kRows ? (left + 1) / 2 : kRows;
    kBlocks[static_cast<size_t>(rows) - 1](job, row);
    row += rows;
  }
}

void to_bf16(const float* x, int64_t count, uint16_t* out) {
  for (int64_t i = 0; i < count; i += 16) {
    const int64_t left = count - i;
    const auto mask = static_cast<__mmask16>(left >= 16 ? 0xFFFF : (1 << left) - 1);
    const __m256bh bits = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, x + i));
    _mm256_mask_storeu_epi16(out + i, mask, reinterpret_cast<__m256i>(bits));
  }
}

}  // namespace

const PanelKernels& avx512_bf16_panel_kernels() {
  static const PanelKernels kernels = [] {
    PanelKernels table = avx512_panel_kernels();
    table.bf16_product = bf16_product;
    table.to_bf16 = to_bf16;
    return table;
  }();
  return kernels;
}

}  // namespace puna::kernels
