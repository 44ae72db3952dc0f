// SPDX-License-Identifier: Apache-2.0
// What decode and prefill attention share: tiles in shared memory, tensor-core fragments, and a
// warp's arithmetic on them. Every rounding is spelled out, so that both compile to the same one.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/cuda/attention.h"

namespace puna::kernels::cuda {

constexpr float kLog2E = 1.4426950408889634F;

__device__ inline uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// 16 bytes, or zeros where `valid` is false.
__device__ inline void copy_async(uint32_t to, const void* from, bool valid) {
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes)
               : "memory");
}
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kPending>
__device__ inline void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// Byte offset of 16-byte unit `unit` of row `row` in a tile of kDim bf16 columns, placed so that
// eight rows' units of one column lie in different banks.
template <int kDim>
__device__ inline uint32_t tile_offset(int row, int unit) {
  constexpr int kUnits = kDim / kUnitElements;
  return static_cast<uint32_t>((row * kUnits + placed_unit(row, unit, kUnits)) * 16);
}

__device__ inline void load_matrices(uint32_t (&to)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(address)
               : "memory");
}
__device__ inline void load_matrices_transposed(uint32_t (&to)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(address)
               : "memory");
}
__device__ inline void load_two_transposed(uint32_t (&to)[2], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
               : "=r"(to[0]), "=r"(to[1])
               : "r"(address)
               : "memory");
}

// c += a * b for 16 rows, 8 columns, 16 deep.
__device__ inline void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                    uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
      "{%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
constexpr uint32_t kBf16Ones = 0x3F803F80U;

__device__ inline float exp2_approx(float x) {
  float y;
  asm volatile("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ inline uint32_t pack_bf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// Scores in units of log 2; -inf where the key is after the row's position.
__device__ inline float masked_score(float product, float scale, int key, int position) {
  return key <= position ? __fmul_rn(product, scale) : -INFINITY;
}
// What probabilities are relative to; any finite number while no key was seen.
__device__ inline float softmax_base(float maximum) {
  return maximum == -INFINITY ? 0.0F : maximum;
}
__device__ inline float probability(float score, float base) {
  return exp2_approx(__fsub_rn(score, base));
}

// Merging a chunk (maximum, sum, out) into what came before it.
struct MergeFactors {
  float before;
  float chunk;
};
__device__ inline MergeFactors merge_factors(float& maximum, float chunk_maximum) {
  const float base = softmax_base(fmaxf(maximum, chunk_maximum));
  const MergeFactors factors = {exp2_approx(__fsub_rn(maximum, base)),
                                exp2_approx(__fsub_rn(chunk_maximum, base))};
  maximum = fmaxf(maximum, chunk_maximum);
  return factors;
}
__device__ inline float merged(float before, float chunk, const MergeFactors& factors) {
  return __fmaf_rn(chunk, factors.chunk, __fmul_rn(before, factors.before));
}
__device__ inline float normalised(float out, float sum) { return __fdiv_rn(out, sum); }

// What a warp knows of its 16 rows: a thread has two (lane / 4 and 8 more), and of every group of
// eight columns two.
template <int kDim>
struct RowState {
  float out[kDim / 8][4] = {};
  float sum[4] = {};
  float maximum[2] = {-INFINITY, -INFINITY};
};
constexpr int kKeyGroups = kTileKeys / 8;
using TileScores = float[kKeyGroups][4];
using TileProbabilities = uint32_t[kTileKeys / 16][4];  // the left operand of four products

// A warp's 16 rows against half a tile of keys: four groups of scores. `queries(step, a)` gives the
// left operand of 16 columns. The sums grow side by side, and the next operands are loaded before
// the last are used.
constexpr int kHalfKeys = kTileKeys / 2;
template <int kDim, typename Queries>
__device__ inline void score_half(float (*scores)[4], uint32_t keys, int lane, Queries queries) {
  constexpr int kSteps = kDim / 16;
  const auto load = [&](uint32_t(&b)[2][4], int step) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      load_matrices(b[i], keys + tile_offset<kDim>(16 * i + (lane & 7) + ((lane >> 4) << 3),
                                                   2 * step + ((lane >> 3) & 1)));
    }
  };
  uint32_t b[2][2][4];
  load(b[0], 0);
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    if (step + 1 < kSteps) load(b[(step + 1) % 2], step + 1);
    uint32_t a[4];
    queries(step, a);
    const uint32_t(&now)[2][4] = b[step % 2];
    multiply_add(scores[0], a, now[0][0], now[0][1]);
    multiply_add(scores[1], a, now[0][2], now[0][3]);
    multiply_add(scores[2], a, now[1][0], now[1][1]);
    multiply_add(scores[3], a, now[1][2], now[1][3]);
  }
}

// Scores into probabilities; what the chunk has so far shrinks to the new maximum. `scale` is that
// of the scores times log2(e); `positions` are of the thread's two rows.
// With kHalves 1 only the first of the thread's rows is there.
template <int kDim, int kHalves = 2>
__device__ inline void weigh_tile(RowState<kDim>& chunk, TileScores& scores,
                                  TileProbabilities& probabilities, int first_key,
                                  const int (&positions)[2], float scale, int lane) {
#pragma unroll
  for (int half = 0; half < kHalves; ++half) {
    float best = -INFINITY;
#pragma unroll
    for (int group = 0; group < kKeyGroups; ++group) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float& score = scores[group][2 * half + i];
        const int key = first_key + 8 * group + 2 * (lane % 4) + i;
        score = masked_score(score, scale, key, positions[half]);
        best = fmaxf(best, score);
      }
    }
    best = fmaxf(best, __shfl_xor_sync(~0U, best, 1));
    best = fmaxf(best, __shfl_xor_sync(~0U, best, 2));
    const float before = chunk.maximum[half];
    chunk.maximum[half] = fmaxf(before, best);
    const float base = softmax_base(chunk.maximum[half]);
    const float shrink = exp2_approx(__fsub_rn(before, base));
#pragma unroll
    for (int i = 2 * half; i < 2 * half + 2; ++i) {
      chunk.sum[i] = __fmul_rn(chunk.sum[i], shrink);
#pragma unroll
      for (int group = 0; group < kDim / 8; ++group)
        chunk.out[group][i] = __fmul_rn(chunk.out[group][i], shrink);
    }
#pragma unroll
    for (int group = 0; group < kKeyGroups; ++group) {
      const float(&of_group)[4] = scores[group];
      probabilities[group / 2][group % 2 * 2 + half] = pack_bf16(
          probability(of_group[2 * half], base), probability(of_group[2 * half + 1], base));
    }
  }
  if constexpr (kHalves == 1) {
#pragma unroll
    for (int step = 0; step < kTileKeys / 16; ++step)
      probabilities[step][1] = probabilities[step][3] = 0;
  }
}

// Half a tile of values, times the probabilities of its keys.
template <int kDim>
__device__ inline void add_half(RowState<kDim>& chunk, const uint32_t (*probabilities)[4],
                                uint32_t values, int lane) {
  constexpr int kPairs = kDim / 16;
  constexpr int kLoads = kHalfKeys / 16 * kPairs;
  const auto load = [&](uint32_t(&b)[4], int index) {
    load_matrices_transposed(b, values + tile_offset<kDim>(16 * (index / kPairs) + (lane & 15),
                                                           2 * (index % kPairs) + (lane >> 4)));
  };
  uint32_t b[2][4];
  load(b[0], 0);
#pragma unroll
  for (int index = 0; index < kLoads; ++index) {
    if (index + 1 < kLoads) load(b[(index + 1) % 2], index + 1);
    const uint32_t(&a)[4] = probabilities[index / kPairs];
    const uint32_t(&now)[4] = b[index % 2];
    const int pair = index % kPairs;
    if (pair == 0) multiply_add(chunk.sum, a, kBf16Ones, kBf16Ones);
    multiply_add(chunk.out[2 * pair], a, now[0], now[1]);
    multiply_add(chunk.out[2 * pair + 1], a, now[2], now[3]);
  }
}

template <int kDim>
__device__ inline void merge_chunk(RowState<kDim>& total, RowState<kDim>& chunk) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const bool seen = chunk.maximum[half] != -INFINITY;  // else the chunk is after the row
    const MergeFactors factors = merge_factors(total.maximum[half], chunk.maximum[half]);
#pragma unroll
    for (int i = 2 * half; i < 2 * half + 2; ++i) {
      if (seen) total.sum[i] = merged(total.sum[i], chunk.sum[i], factors);
#pragma unroll
      for (int group = 0; group < kDim / 8; ++group) {
        if (seen) total.out[group][i] = merged(total.out[group][i], chunk.out[group][i], factors);
      }
    }
  }
  chunk = RowState<kDim>{};
}

// Starts copying kTileKeys keys and values from `first_key` into shared memory, as they lie; keys
// at and beyond `end` are zeros.
template <int kDim, int kThreads>
__device__ inline void copy_tile(uint32_t keys, uint32_t values, const AttentionArgs& args,
                                 int kv_head, const int32_t* table, int first_key, int end) {
  constexpr int kUnits = kDim / 8;
  const int64_t value_offset = int64_t{args.shape.num_kv_heads} * kCellsPerBlock * kDim;
#pragma unroll
  for (int i = static_cast<int>(threadIdx.x); i < kTileKeys * kUnits; i += kThreads) {
    const int key = i / kUnits;
    const int unit = i % kUnits;
    const int position = first_key + key;
    const bool valid = position < end;
    const int32_t block = valid ? table[position / kCellsPerBlock] : 0;
    const int64_t line =
        kv_line(block, args.shape.num_kv_heads, kv_head, false, position % kCellsPerBlock);
    const BFloat16* from = args.kv + line * kDim + unit * kUnitElements;
    copy_async(keys + i * 16, from, valid);
    copy_async(values + i * 16, from + value_offset, valid);
  }
}

}  // namespace puna::kernels::cuda
