// SPDX-License-Identifier: Apache-2.0
// The inner loops of attention, one table per instruction set; attention.cc says how they fit
// together. Keys and values are read where they stand (kv_layout.h), 64 bytes a step: a step is two
// elements of depth for bf16 and one for f32. int8 is expanded to bf16 first, which is exact.
//
// The arithmetic of a row, the same for every number of rows and blocks:
//   score[j]  = chain over the steps of depth, in order; times the key's scale for int8
//   weight[j] = 2^((score[j] - max) * factor) for visible j, else 0; times the value's scale for
//               int8, then rounded to bf16 where products are bf16
//   sums      = sums * keep + chain over the steps of positions, in order
// Where the CPU multiplies bf16 pairs, queries and weights are rounded to bf16; elsewhere they are
// f32, so instruction sets differ in the last bits.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/kv_layout.h"

namespace puna::kernels {

inline constexpr int64_t kAttentionChunk = 128;  // positions per softmax
inline constexpr int64_t kAttentionSpan = 512;   // positions that are summed up from zero
inline constexpr int64_t kAttentionRows = 64;    // positions x query heads of a tile
inline constexpr int64_t kMaxHeadDim = 256;
inline constexpr int64_t kChunkBlocks = kAttentionChunk / kKvBlockTokens;
inline constexpr int64_t kMostSplitTiles = 1024;
// Bytes between rows of queries, and of scores or weights: odd numbers of cache lines.
inline constexpr int64_t kQueryStride = kMaxHeadDim * 4 + 64;
inline constexpr int64_t kScoreStride = kAttentionChunk * 4 + 64;

// What a row has seen: sums of weighted values [padded], sums of weights [16 lanes], and the
// largest score [1].
constexpr int64_t attention_state_floats(int64_t padded_dim) { return padded_dim + 32; }

// scores[row] = q[row] . keys, for whole blocks.
struct ScoreJob {
  const std::byte* q = nullptr;  // from load_query()
  int64_t rows = 0;
  int64_t head_dim = 0;
  int64_t blocks = 0;
  const std::byte* const* keys = nullptr;  // per block
  // Per block, what stands at the same place in the next chunk, to be fetched into the cache, or
  // null; `next_is_int8` when it takes half as much.
  const std::byte* const* next = nullptr;
  bool next_is_int8 = false;
  const float* const* scales = nullptr;  // per block, 16 factors, or null
  std::byte* scores = nullptr;           // f32 rows
};

// Turns scores into weights, in place, and moves each row's state to the new maximum.
struct WeightJob {
  std::byte* scores = nullptr;
  int64_t rows = 0;
  int64_t blocks = 0;
  const int32_t* visible = nullptr;      // positions per row, at least 1
  const float* const* scales = nullptr;  // per block, 16 factors, or null
  float factor = 1.0F;
  float* state = nullptr;
  int64_t padded_dim = 0;
  float* keep = nullptr;  // per row: what sums are to be multiplied with; room for 16 more
};

// sums[row] = sums[row] * keep[row] + weights[row] . values, over `count` positions.
struct ValueJob {
  const std::byte* weights = nullptr;
  int64_t rows = 0;
  int64_t count = 0;
  const std::byte* const* values = nullptr;  // per block
  const std::byte* const* next = nullptr;    // as in ScoreJob
  bool next_is_int8 = false;
  const float* keep = nullptr;
  float* state = nullptr;
  int64_t padded_dim = 0;
};

// The loops over one storage of keys and values.
struct ChunkKernels {
  // A head of f32 queries into a row of ScoreJob::q.
  void (*load_query)(const float* q, int64_t head_dim, std::byte* to) = nullptr;
  void (*scores)(const ScoreJob& job) = nullptr;
  void (*weigh)(const WeightJob& job) = nullptr;
  void (*add_values)(const ValueJob& job) = nullptr;
};

struct AttentionKernels {
  KvStores stores;
  ChunkKernels f32;
  ChunkKernels bf16;  // and int8, expanded
  // `count` int8 to bf16, a multiple of 32.
  void (*expand)(const std::byte* from, int64_t count, std::byte* to) = nullptr;
  // Adds the state of later positions to a row's state.
  void (*merge)(const float* later, int64_t padded_dim, float factor, float* state) = nullptr;
  // out = sums / sum of weights, padded_dim values.
  void (*finish)(const float* state, int64_t padded_dim, float* out) = nullptr;
};

const AttentionKernels& avx2_attention_kernels();
const AttentionKernels& avx512_attention_kernels();
const AttentionKernels& avx512_bf16_attention_kernels();

}  // namespace puna::kernels
