// SPDX-License-Identifier: Apache-2.0
// Prefill attention: a thread block keeps a tile of 128 query rows (positions times the query heads
// of one KV head), 16 to a warp, and walks the keys of its sequence.
#include "base/check.h"
#include "kernels/cuda/attention_tile.cuh"
#include "kernels/cuda/launch.cuh"

namespace puna::kernels::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kRows = 16 * kWarps;
constexpr int kGroups = kTileKeys / 8;  // of eight keys

template <int kDim>
struct PrefillShared {
  static constexpr int kTileBytes = kTileKeys * kDim * 2;
  static constexpr int kRing = kRows * kDim * 2;  // after the queries
  static constexpr int kBytes = kRing + 2 * 2 * kTileBytes;
};

// A thread's part: two rows (lane / 4 and 8 more) of its warp's 16, two columns of every group.
template <int kDim>
struct RowState {
  float out[kDim / 8][4] = {};
  float sum[4] = {};
  float maximum[2] = {-INFINITY, -INFINITY};
};

struct PrefillArgs {
  AttentionArgs attention;
  const QueryTile* tiles;
};

template <int kDim>
__device__ void add_tile(RowState<kDim>& chunk, uint32_t queries, uint32_t keys, uint32_t values,
                         int first_key, const int (&positions)[2], float scale) {
  const int lane = threadIdx.x % 32;
  const int first_row = static_cast<int>(threadIdx.x / 32) * 16;
  float scores[kGroups][4] = {};
#pragma unroll
  for (int pair = 0; pair < kGroups / 2; ++pair) {
    float(&two)[2][4] = *reinterpret_cast<float(*)[2][4]>(&scores[2 * pair]);
    scores_of_16_keys<kDim>(two, queries, first_row, keys, 16 * pair, lane);
  }
  float best[2] = {-INFINITY, -INFINITY};
#pragma unroll
  for (int group = 0; group < kGroups; ++group) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int key = first_key + 8 * group + 2 * (lane % 4) + i % 2;
      scores[group][i] = masked_score(scores[group][i], scale, key, positions[i / 2]);
      best[i / 2] = fmaxf(best[i / 2], scores[group][i]);
    }
  }
  float base[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    best[half] = fmaxf(best[half], __shfl_xor_sync(~0U, best[half], 1));
    best[half] = fmaxf(best[half], __shfl_xor_sync(~0U, best[half], 2));
    const float before = chunk.maximum[half];
    chunk.maximum[half] = fmaxf(before, best[half]);
    base[half] = softmax_base(chunk.maximum[half]);
    const float shrink = exp2_approx(__fsub_rn(before, base[half]));
#pragma unroll
    for (int i = 2 * half; i < 2 * half + 2; ++i) {
      chunk.sum[i] = __fmul_rn(chunk.sum[i], shrink);
#pragma unroll
      for (int group = 0; group < kDim / 8; ++group)
        chunk.out[group][i] = __fmul_rn(chunk.out[group][i], shrink);
    }
  }
#pragma unroll
  for (int step = 0; step < kTileKeys / 16; ++step) {
    const float(&low)[4] = scores[2 * step];
    const float(&high)[4] = scores[2 * step + 1];
    const uint32_t a[4] = {pack_bf16(probability(low[0], base[0]), probability(low[1], base[0])),
                           pack_bf16(probability(low[2], base[1]), probability(low[3], base[1])),
                           pack_bf16(probability(high[0], base[0]), probability(high[1], base[0])),
                           pack_bf16(probability(high[2], base[1]), probability(high[3], base[1]))};
    multiply_add(chunk.sum, a, kBf16Ones, kBf16Ones);
#pragma unroll
    for (int pair = 0; pair < kDim / 16; ++pair) {
      uint32_t b[4];
      load_matrices_transposed(
          b, values + tile_offset<kDim>(16 * step + (lane & 15), 2 * pair + (lane >> 4)));
      multiply_add(chunk.out[2 * pair], a, b[0], b[1]);
      multiply_add(chunk.out[2 * pair + 1], a, b[2], b[3]);
    }
  }
}

template <int kDim>
__device__ void merge_chunk(RowState<kDim>& total, RowState<kDim>& chunk) {
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

template <int kDim>
__device__ void copy_queries(const AttentionArgs& attention, const QueryTile& tile, int kv_head,
                             int group, uint32_t to) {
  constexpr int kUnits = kDim / 8;
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kUnits; i += kThreads) {
    const int row = i / kUnits;
    const int step_row = row / group;
    const bool valid = step_row < tile.num_rows;
    const int64_t from =
        (int64_t{tile.first_row + (valid ? step_row : 0)} * attention.shape.num_heads +
         kv_head * group + row % group) *
            kDim +
        (i % kUnits) * 8;
    copy_async(to + tile_offset<kDim>(row, i % kUnits), attention.queries + from, valid);
  }
}

template <int kDim>
__device__ void write_rows(const AttentionArgs& attention, const QueryTile& tile, int kv_head,
                           int group, const RowState<kDim>& total) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = static_cast<int>(threadIdx.x / 32) * 16 + lane / 4 + 8 * half;
    if (row / group >= tile.num_rows) continue;
    BFloat16* out =
        attention.out + (int64_t{tile.first_row + row / group} * attention.shape.num_heads +
                         kv_head * group + row % group) *
                            kDim;
#pragma unroll
    for (int i = 0; i < kDim / 8; ++i) {
      *reinterpret_cast<uint32_t*>(out + 8 * i + 2 * (lane % 4)) =
          pack_bf16(normalised(total.out[i][2 * half], total.sum[2 * half]),
                    normalised(total.out[i][2 * half + 1], total.sum[2 * half]));
    }
  }
}

template <int kDim>
__global__ void __launch_bounds__(kThreads, 1) prefill_kernel(PrefillArgs args) {
  using Shared = PrefillShared<kDim>;
  constexpr int kTilesPerChunk = kChunkKeys / kTileKeys;
  extern __shared__ __align__(128) unsigned char memory[];
  wait_for_previous_kernel();
  const AttentionArgs& attention = args.attention;
  const int group = attention.shape.num_heads / attention.shape.num_kv_heads;
  const int kv_head = blockIdx.y;
  // The last tiles have the most keys: they go first.
  const QueryTile tile = args.tiles[gridDim.x - 1 - blockIdx.x];
  const uint32_t queries = shared_address(memory);
  const int32_t* table = attention.block_tables + tile.table_offset;
  const int end = tile.first_position + tile.num_rows;
  const int tiles = (end + kTileKeys - 1) / kTileKeys;
  const auto stage_keys = [&](int i) {
    return queries + Shared::kRing + (i % 2) * 2 * Shared::kTileBytes;
  };
  const auto copy = [&](int i) {
    copy_tile<kDim, kThreads>(stage_keys(i), stage_keys(i) + Shared::kTileBytes, attention, kv_head,
                              table, i * kTileKeys, end);
    commit_copies();
  };
  copy_queries<kDim>(attention, tile, kv_head, group, queries);
  copy(0);
  const int warp_row = static_cast<int>(threadIdx.x / 32) * 16;
  const int row = warp_row + static_cast<int>(threadIdx.x % 32) / 4;
  const int positions[2] = {tile.first_position + row / group,
                            tile.first_position + (row + 8) / group};
  const int warp_last = tile.first_position + (warp_row + 15) / group;
  const float scale = __fmul_rn(attention.scale, kLog2E);
  RowState<kDim> total;
  RowState<kDim> chunk;
  for (int i = 0; i < tiles; ++i) {
    wait_for_copies<0>();
    __syncthreads();
    if (i + 1 < tiles) copy(i + 1);
    if (i * kTileKeys <= warp_last) {
      add_tile<kDim>(chunk, queries, stage_keys(i), stage_keys(i) + Shared::kTileBytes,
                     i * kTileKeys, positions, scale);
    }
    if (i % kTilesPerChunk == kTilesPerChunk - 1 || i == tiles - 1) merge_chunk(total, chunk);
  }
  write_rows<kDim>(attention, tile, kv_head, group, total);
}

template <int kDim>
void launch_prefill(const PrefillArgs& args, int32_t num_tiles, Stream stream) {
  const dim3 grid(static_cast<unsigned>(num_tiles),
                  static_cast<unsigned>(args.attention.shape.num_kv_heads));
  launch(prefill_kernel<kDim>, grid, kThreads, PrefillShared<kDim>::kBytes, stream, args);
}

template <int kDim>
void raise_limit() {
  check_device(
      cudaFuncSetAttribute(prefill_kernel<kDim>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                           PrefillShared<kDim>::kBytes),
      "prefill attention's shared memory");
}

}  // namespace

void prepare_prefill_attention() {
  raise_limit<16>();
  raise_limit<32>();
  raise_limit<64>();
  raise_limit<128>();
}

int32_t prefill_tile_rows(const AttentionShape& shape) {
  return kRows / (shape.num_heads / shape.num_kv_heads);
}

void attention_prefill(const AttentionArgs& args, const QueryTile* tiles, int32_t num_tiles,
                       Stream stream) {
  CHECK(attention_supports(args.shape));
  const PrefillArgs all = {args, tiles};
  switch (args.shape.head_dim) {
    case 16:
      return launch_prefill<16>(all, num_tiles, stream);
    case 32:
      return launch_prefill<32>(all, num_tiles, stream);
    case 64:
      return launch_prefill<64>(all, num_tiles, stream);
    default:
      return launch_prefill<128>(all, num_tiles, stream);
  }
}

}  // namespace puna::kernels::cuda
