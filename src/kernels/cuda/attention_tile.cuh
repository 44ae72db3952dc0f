// SPDX-License-Identifier: Apache-2.0
// What decode and prefill attention share: tiles in shared memory, tensor-core fragments, and the
// softmax arithmetic. Every rounding is spelled out, so that both compile to the same one.
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
  constexpr int kUnits = kDim / 8;
  int swizzled;
  if constexpr (kUnits >= 8) {
    swizzled = unit ^ (row & 7);
  } else {
    swizzled = unit ^ ((row / (8 / kUnits)) & (kUnits - 1));
  }
  return static_cast<uint32_t>((row * kUnits + swizzled) * 16);
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

// 16 rows of queries against 16 keys at `first_key` of a tile: two groups of eight columns.
template <int kDim>
__device__ inline void scores_of_16_keys(float (&scores)[2][4], uint32_t queries, int first_row,
                                         uint32_t keys, int first_key, int lane) {
#pragma unroll
  for (int step = 0; step < kDim / 16; ++step) {
    uint32_t a[4];
    uint32_t b[4];
    load_matrices(a, queries + tile_offset<kDim>(first_row + (lane & 15), 2 * step + (lane >> 4)));
    load_matrices(b, keys + tile_offset<kDim>(first_key + (lane & 7) + ((lane >> 4) << 3),
                                              2 * step + ((lane >> 3) & 1)));
    multiply_add(scores[0], a, b[0], b[1]);
    multiply_add(scores[1], a, b[2], b[3]);
  }
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

// Starts copying kTileKeys keys and values from `first_key` into shared memory; keys at and beyond
// `end` are zeros.
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
    const int64_t block = valid ? table[position / kCellsPerBlock] : 0;
    const BFloat16* from = args.kv +
                           (block * 2 * args.shape.num_kv_heads + kv_head) * kCellsPerBlock * kDim +
                           (position % kCellsPerBlock) * kDim + unit * 8;
    copy_async(keys + tile_offset<kDim>(key, unit), from, valid);
    copy_async(values + tile_offset<kDim>(key, unit), from + value_offset, valid);
  }
}

}  // namespace puna::kernels::cuda
