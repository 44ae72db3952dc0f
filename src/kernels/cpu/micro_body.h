// SPDX-License-Identifier: Apache-2.0
// The micro-kernels, written once over `Vector` (vector_avx2.h or vector_avx512.h, included
// before). Everything has internal linkage: see micro_kernels.h.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/cpu/micro_kernels.h"

namespace puna::kernels {
namespace {

using Reg = Vector::Reg;
constexpr int kWidth = Vector::kWidth;

// Sums of four registers: each folded to four lanes, then (0 + 1) + (2 + 3).
inline __m128 reduce4(Reg a, Reg b, Reg c, Reg d) {
  const __m128 ab = _mm_hadd_ps(Vector::fold(a), Vector::fold(b));
  const __m128 cd = _mm_hadd_ps(Vector::fold(c), Vector::fold(d));
  return _mm_hadd_ps(ab, cd);
}

inline float reduce(Reg a) { return _mm_cvtss_f32(reduce4(a, a, a, a)); }

inline float reduce_max(Reg a) {
  alignas(64) float lanes[kWidth];
  Vector::store(lanes, a);
  float largest = lanes[0];
  for (int i = 1; i < kWidth; ++i) largest = lanes[i] > largest ? lanes[i] : largest;
  return largest;
}

// e^x for x <= 88, relative error below 2e-7; exactly 0 below -87 (where f32 gets subnormal).
inline Reg exponential(Reg x) {
  const Reg clamped = Vector::max(Vector::min(x, Vector::set(88.0F)), Vector::set(-87.0F));
  const Reg n = Vector::round(Vector::mul(clamped, Vector::set(1.44269504F)));
  // ln 2 in two pieces: n * 0.693359375 is exact for |n| < 2^12.
  Reg r = Vector::fma(n, Vector::set(-0.693359375F), clamped);
  r = Vector::fma(n, Vector::set(2.12194440e-4F), r);
  // |r| <= ln 2 / 2: the Taylor series to r^7 leaves 5e-9.
  Reg series = Vector::set(1.0F / 5040.0F);
  series = Vector::fma(series, r, Vector::set(1.0F / 720.0F));
  series = Vector::fma(series, r, Vector::set(1.0F / 120.0F));
  series = Vector::fma(series, r, Vector::set(1.0F / 24.0F));
  series = Vector::fma(series, r, Vector::set(1.0F / 6.0F));
  series = Vector::fma(series, r, Vector::set(0.5F));
  series = Vector::fma(series, r, Vector::set(1.0F));
  series = Vector::fma(series, r, Vector::set(1.0F));
  const Reg power = Vector::scale_by_power(series, n);
  return Vector::keep_if_at_least(power, x, Vector::set(-87.0F));
}

// kM x kN elements of a DotTile whose corner is (first_m, first_n).
template <int kM, int kN>
inline void dot_block(const DotTile& tile, int64_t first_m, int64_t first_n) {
  Reg sums[kM][kN];
  for (int i = 0; i < kM; ++i) {
    for (int j = 0; j < kN; ++j) sums[i][j] = Vector::zero();
  }
  const float* a = tile.a + first_m * tile.a_stride;
  const float* w = tile.w + first_n * tile.w_stride;
  for (int64_t k = 0; k < tile.depth; k += kWidth) {
    Reg weights[kN];
    for (int j = 0; j < kN; ++j) weights[j] = Vector::load(w + j * tile.w_stride + k);
    for (int i = 0; i < kM; ++i) {
      const Reg x = Vector::load(a + i * tile.a_stride + k);
      for (int j = 0; j < kN; ++j) sums[i][j] = Vector::fma(x, weights[j], sums[i][j]);
    }
  }
  constexpr int kCount = kM * kN;
  alignas(16) float totals[(kCount + 3) / 4 * 4];
  for (int t = 0; t < kCount; t += 4) {
    const auto at = [&](int index) {
      const int clamped = index < kCount ? index : kCount - 1;
      return sums[clamped / kN][clamped % kN];
    };
    _mm_store_ps(totals + t, reduce4(at(t), at(t + 1), at(t + 2), at(t + 3)));
  }
  for (int i = 0; i < kM; ++i) {
    float* c = tile.c + (first_m + i) * tile.c_stride + first_n;
    for (int j = 0; j < kN; ++j)
      c[j] = tile.accumulate ? c[j] + totals[i * kN + j] : totals[i * kN + j];
  }
}

template <int kN>
inline void dot_columns(const DotTile& tile, int64_t first_n) {
  int64_t i = 0;
  for (; i + Vector::kTileM <= tile.m; i += Vector::kTileM) {
    dot_block<Vector::kTileM, kN>(tile, i, first_n);
  }
  static_assert(Vector::kTileM == 4);
  switch (tile.m - i) {
    case 3:
      return dot_block<3, kN>(tile, i, first_n);
    case 2:
      return dot_block<2, kN>(tile, i, first_n);
    case 1:
      return dot_block<1, kN>(tile, i, first_n);
    default:
      return;
  }
}

void dot_tile(const DotTile& tile) {
  int64_t j = 0;
  for (; j + Vector::kTileN <= tile.n; j += Vector::kTileN) dot_columns<Vector::kTileN>(tile, j);
  for (; j + 2 <= tile.n; j += 2) dot_columns<2>(tile, j);
  if (j < tile.n) dot_columns<1>(tile, j);
}

// Rows [first, first + kM) of a WeightedSum, kN registers of columns from `column`.
template <int kM, int kN>
inline void weighted_block(const WeightedSum& sum, int64_t first, int64_t column) {
  Reg totals[kM][kN];
  for (int i = 0; i < kM; ++i) {
    for (int j = 0; j < kN; ++j) totals[i][j] = Vector::zero();
  }
  const float* p = sum.p + first * sum.p_stride;
  for (int64_t t = 0; t < sum.count; ++t) {
    const float* v = sum.v + t * sum.v_stride + column;
    Reg values[kN];
    for (int j = 0; j < kN; ++j) values[j] = Vector::load(v + j * kWidth);
    for (int i = 0; i < kM; ++i) {
      const Reg weight = Vector::set(p[i * sum.p_stride + t]);
      for (int j = 0; j < kN; ++j) totals[i][j] = Vector::fma(weight, values[j], totals[i][j]);
    }
  }
  for (int i = 0; i < kM; ++i) {
    float* out = sum.out + (first + i) * sum.out_stride + column;
    for (int j = 0; j < kN; ++j) Vector::store(out + j * kWidth, totals[i][j]);
  }
}

template <int kN>
inline void weighted_columns(const WeightedSum& sum, int64_t column) {
  int64_t i = 0;
  for (; i + 4 <= sum.m; i += 4) weighted_block<4, kN>(sum, i, column);
  for (; i < sum.m; ++i) weighted_block<1, kN>(sum, i, column);
}

void weighted_sum(const WeightedSum& sum) {
  int64_t column = 0;
  for (; column + 2 * kWidth <= sum.columns; column += 2 * kWidth) weighted_columns<2>(sum, column);
  for (; column < sum.columns; column += kWidth) weighted_columns<1>(sum, column);
}

ChunkSoftmax softmax(float* scores, int64_t visible, int64_t padded) {
  const Reg lowest = Vector::set(-3.0e38F);
  Reg largest = lowest;
  for (int64_t j = 0; j < visible; j += kWidth) {
    largest = Vector::max(largest, Vector::first(visible - j, Vector::load(scores + j), lowest));
  }
  const float max = reduce_max(largest);
  Reg sum = Vector::zero();
  for (int64_t j = 0; j < padded; j += kWidth) {
    const Reg power = exponential(Vector::sub(Vector::load(scores + j), Vector::set(max)));
    const Reg kept = Vector::first(visible - j, power, Vector::zero());
    Vector::store(scores + j, kept);
    sum = Vector::add(sum, kept);
  }
  return {max, reduce(sum)};
}

void blend(const float* add, int64_t padded, float keep, float take, float* out) {
  for (int64_t i = 0; i < padded; i += kWidth) {
    const Reg kept = Vector::mul(Vector::load(out + i), Vector::set(keep));
    Vector::store(out + i, Vector::fma(Vector::load(add + i), Vector::set(take), kept));
  }
}

void rms_norm(const float* x, const float* weight, int64_t columns, int64_t padded, float eps,
              float* out) {
  Reg sum = Vector::zero();
  for (int64_t i = 0; i < padded; i += kWidth) {
    const Reg value = Vector::load(x + i);
    sum = Vector::fma(value, value, sum);
  }
  const float mean = reduce(sum) / static_cast<float>(columns);
  const float scale = 1.0F / _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(mean + eps)));
  for (int64_t i = 0; i < padded; i += kWidth) {
    const Reg scaled = Vector::mul(Vector::load(x + i), Vector::set(scale));
    Vector::store(out + i, Vector::mul(scaled, Vector::load(weight + i)));
  }
}

void swiglu(const float* gate, const float* up, int64_t padded, float* out) {
  for (int64_t i = 0; i < padded; i += kWidth) {
    const Reg g = Vector::load(gate + i);
    const Reg power = exponential(Vector::sub(Vector::zero(), g));
    const Reg silu = Vector::div(g, Vector::add(Vector::set(1.0F), power));
    Vector::store(out + i, Vector::mul(silu, Vector::load(up + i)));
  }
}

void from_half(const uint16_t* half, int64_t count, float* out) {
  int64_t i = 0;
  for (; i + kWidth <= count; i += kWidth) Vector::store(out + i, Vector::from_half(half + i));
  for (; i < count; ++i) {
    uint16_t bits = 0;  // by memcpy: a mapped file may hold halves at odd addresses
    std::memcpy(&bits, half + i, sizeof bits);
    out[i] = _cvtsh_ss(bits);
  }
}

void to_half(const float* values, int64_t count, uint16_t* half) {
  constexpr float kLargest = 65504.0F;
  int64_t i = 0;
  for (; i + kWidth <= count; i += kWidth) {
    const Reg above = Vector::max(Vector::load(values + i), Vector::set(-kLargest));
    Vector::to_half(half + i, Vector::min(above, Vector::set(kLargest)));
  }
  for (; i < count; ++i) {
    float value = values[i] > -kLargest ? values[i] : -kLargest;
    value = value < kLargest ? value : kLargest;
    half[i] = _cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT);
  }
}

}  // namespace
}  // namespace puna::kernels
