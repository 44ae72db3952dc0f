// SPDX-License-Identifier: Apache-2.0
// bf16 rows times bf16 panels with VDPBF16PS: per element one chain over pairs of k, in order.
#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 warns inside its own intrinsics.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include <cstring>

#include "kernels/cpu/panel_kernels.h"

namespace puna::kernels {
namespace {

constexpr int64_t kAhead = 4096;  // bytes
constexpr int kRows = 6;          // 6 x 2 sums, 2 weights, an activation

inline __m512bh load_pairs(const uint16_t* from) {
  const __m512i bits = _mm512_loadu_si512(from);
  return reinterpret_cast<__m512bh>(bits);
}

// kM rows from `row` on, both panels.
template <int kM>
inline void block(const Bf16Product& job, int64_t row) {
  __m512 sums[kM][2];
  for (int i = 0; i < kM; ++i) {
    for (int p = 0; p < 2; ++p) {
      sums[i][p] = job.accumulate
                       ? _mm512_loadu_ps(job.c + (row + i) * job.c_stride + p * kPanelColumns)
                       : _mm512_setzero_ps();
    }
  }
  const uint16_t* low = job.x + row * job.x_stride;
  const uint16_t* high = low + 3 * job.x_stride;  // two addresses reach six rows
  for (int64_t k = 0; k < job.depth; k += 2) {
    __m512bh w[2];
    const uint16_t* from = job.pair + k * kPairColumns;
    for (int p = 0; p < 2; ++p) w[p] = load_pairs(from + p * 2 * kPanelColumns);
    if (row == 0) {
      for (int p = 0; p < 2; ++p)
        _mm_prefetch(reinterpret_cast<const char*>(from) + kAhead + 64 * p, _MM_HINT_T0);
    }
    for (int i = 0; i < kM; ++i) {
      const uint16_t* at = (i < 3 ? low + i * job.x_stride : high + (i - 3) * job.x_stride) + k;
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

void bf16_product(const Bf16Product& job) {
  for (int64_t row = 0; row < job.m;) {
    const int64_t left = job.m - row;
    const int64_t rows = left <= kRows ? left : left < 2 * kRows ? (left + 1) / 2 : kRows;
    switch (rows) {
      case 1:
        block<1>(job, row);
        break;
      case 2:
        block<2>(job, row);
        break;
      case 3:
        block<3>(job, row);
        break;
      case 4:
        block<4>(job, row);
        break;
      case 5:
        block<5>(job, row);
        break;
      default:
        block<6>(job, row);
        break;
    }
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
