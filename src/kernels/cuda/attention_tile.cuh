// SPDX-License-Identifier: Apache-2.0
// What decode and prefill attention share: tiles in shared memory, tensor-core fragments, and a
// warp's arithmetic on them. Every rounding is spelled out, so that both compile to the same one.
#pragma once

#include <cstdint>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/bulk_copy.cuh"
#include "kernels/cuda/elementwise.cuh"
#include "kernels/cuda/mma.cuh"

namespace puna::kernels::cuda {

constexpr float kLog2E = 1.4426950408889634F;

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

// Byte offset of 16-byte unit `unit` of row `row` in a tile of kDim f16 columns, whose rows lie as
// in KV blocks.
template <int kDim>
__device__ inline uint32_t tile_offset(int row, int unit) {
  constexpr int kUnits = kDim / kUnitElements;
  return static_cast<uint32_t>((row / kCellsPerBlock * kCellsPerBlock * kUnits +
                                placed_unit(row % kCellsPerBlock, unit, kUnits)) *
                               16);
}

__device__ inline float exp2_approx(float x) {
  float y;
  asm volatile("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// What probabilities are relative to; any finite number while no key was seen.
__device__ inline float softmax_base(float maximum) {
  return maximum == -INFINITY ? 0.0F : maximum;
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

// Of a thread's two rows the best score, in units of log 2, and the sum of the probabilities that
// this thread has seen: gather_sums() adds the others'.
struct RowWeights {
  float maximum[2] = {-INFINITY, -INFINITY};
  float sum[2] = {};
};
// What a warp knows of its 16 rows: a thread has two (lane / 4 and 8 more), and of every group of
// eight columns two.
template <int kDim>
struct RowState {
  float out[kDim / 8][4] = {};
  RowWeights weights;
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

// Products of queries and keys into probabilities relative to the new maximum, in f32, and what all
// before shrinks by. `scale` is that of the scores times log2(e); `positions` are of the thread's
// two rows. With kMasked false no key is after its row; with kHalves 1 only the first of the rows
// is there.
template <int kHalves = 2, bool kMasked = true>
__device__ inline void weigh_scores(RowWeights& weights, float (&shrink)[2], TileScores& scores,
                                    int first_key, const int (&positions)[2], float scale,
                                    int lane) {
#pragma unroll
  for (int half = 0; half < kHalves; ++half) {
    float best = -INFINITY;
#pragma unroll
    for (int group = 0; group < kKeyGroups; ++group) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float& score = scores[group][2 * half + i];
        const int key = first_key + 8 * group + 2 * (lane % 4) + i;
        if (kMasked && key > positions[half]) score = -INFINITY;
        best = fmaxf(best, score);
      }
    }
    best = fmaxf(best, __shfl_xor_sync(~0U, best, 1));
    best = fmaxf(best, __shfl_xor_sync(~0U, best, 2));
    const float before = weights.maximum[half];
    weights.maximum[half] = fmaxf(before, __fmul_rn(best, scale));
    const float base = softmax_base(weights.maximum[half]);
    shrink[half] = exp2_approx(__fsub_rn(before, base));
    float sum = __fmul_rn(weights.sum[half], shrink[half]);
#pragma unroll
    for (int group = 0; group < kKeyGroups; ++group) {
#pragma unroll
      for (int i = 2 * half; i < 2 * half + 2; ++i) {
        scores[group][i] = exp2_approx(__fmaf_rn(scores[group][i], scale, -base));
        sum = __fadd_rn(sum, scores[group][i]);
      }
    }
    weights.sum[half] = sum;
  }
}

template <int kHalves = 2>
__device__ inline void pack_tile(TileProbabilities& packed, const TileScores& probabilities) {
#pragma unroll
  for (int group = 0; group < kKeyGroups; ++group) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      packed[group / 2][group % 2 * 2 + half] =
          half < kHalves
              ? to_half_pair(probabilities[group][2 * half], probabilities[group][2 * half + 1])
              : 0;
    }
  }
}

template <int kDim, int kHalves = 2>
__device__ inline void shrink_rows(RowState<kDim>& chunk, const float (&shrink)[2]) {
#pragma unroll
  for (int i = 0; i < 2 * kHalves; ++i) {
#pragma unroll
    for (int group = 0; group < kDim / 8; ++group)
      chunk.out[group][i] = __fmul_rn(chunk.out[group][i], shrink[i / 2]);
  }
}

// All of it, when nothing else is to be done between.
template <int kDim, int kHalves = 2>
__device__ inline void weigh_tile(RowState<kDim>& chunk, TileScores& scores,
                                  TileProbabilities& probabilities, int first_key,
                                  const int (&positions)[2], float scale, int lane) {
  float shrink[2];
  weigh_scores<kHalves>(chunk.weights, shrink, scores, first_key, positions, scale, lane);
  shrink_rows<kDim, kHalves>(chunk, shrink);
  pack_tile<kHalves>(probabilities, scores);
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
    multiply_add(chunk.out[2 * pair], a, now[0], now[1]);
    multiply_add(chunk.out[2 * pair + 1], a, now[2], now[3]);
  }
}

// The four threads of a row, whose keys differ, add up what they have seen.
template <int kHalves = 2>
__device__ inline void gather_sums(RowWeights& weights) {
#pragma unroll
  for (int half = 0; half < kHalves; ++half) {
    float& sum = weights.sum[half];
    sum = __fadd_rn(sum, __shfl_xor_sync(~0U, sum, 1));
    sum = __fadd_rn(sum, __shfl_xor_sync(~0U, sum, 2));
  }
}

// Takes a chunk, sums gathered, into what came before it.
template <int kDim>
__device__ inline void merge_chunk(RowState<kDim>& total, const RowState<kDim>& chunk) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float& maximum = total.weights.maximum[half];
    float& sum = total.weights.sum[half];
    const float chunk_maximum = chunk.weights.maximum[half];
    if (chunk_maximum == -INFINITY) continue;  // the chunk is after the row
    const MergeFactors factors = merge_factors(maximum, chunk_maximum);
    sum = merged(sum, chunk.weights.sum[half], factors);
#pragma unroll
    for (int i = 2 * half; i < 2 * half + 2; ++i) {
#pragma unroll
      for (int group = 0; group < kDim / 8; ++group)
        total.out[group][i] = merged(total.out[group][i], chunk.out[group][i], factors);
    }
  }
}

// Starts copying kTileKeys keys and values from `first_key` into shared memory, as they lie; keys
// at and beyond `end` are zeros.
template <int kDim, int kThreads>
__device__ inline void copy_tile(uint32_t keys, uint32_t values, const AttentionArgs& args,
                                 int kv_head, const int32_t* table, int first_key, int end) {
  constexpr int kOfBlock = kCellsPerBlock * kDim / kUnitElements;
  const int64_t value_offset = int64_t{args.shape.num_kv_heads} * kCellsPerBlock * kDim;
#pragma unroll
  for (int i = static_cast<int>(threadIdx.x); i < kTileKeys / kCellsPerBlock * kOfBlock;
       i += kThreads) {
    const int place = i % kOfBlock;
    const int position =
        first_key + i / kOfBlock * kCellsPerBlock + cell_of_place(place, kDim / kUnitElements);
    const bool valid = position < end;
    const int32_t block = valid ? table[position / kCellsPerBlock] : 0;
    const Float16* from =
        args.kv + kv_cells(block, args.shape.num_kv_heads, kv_head, false) * kCellsPerBlock * kDim +
        place * kUnitElements;
    copy_async(keys + i * 16, from, valid);
    copy_async(values + i * 16, from + value_offset, valid);
  }
}

}  // namespace puna::kernels::cuda
