// SPDX-License-Identifier: Apache-2.0
// Prefill attention on any GPU: a thread block keeps a tile of query rows, 16 to a warp, and walks
// the keys of its sequence. Hopper has a faster one, with the same bits:
// attention_prefill_wgmma.cu.
#include "base/check.h"
#include "kernels/cuda/attention_prefill.cuh"
#include "kernels/cuda/launch.cuh"

namespace puna::kernels::cuda {
namespace {

constexpr int kRows = kPrefillRows;
constexpr int kThreads = kRows / 16 * 32;

template <int kDim>
struct PrefillShared {
  static constexpr int kTileBytes = kTileKeys * kDim * 2;
  static constexpr int kRing = kRows * kDim * 2;  // after the queries
  static constexpr int kBytes = kRing + 2 * 2 * kTileBytes;
};

template <int kDim>
__device__ void add_tile(RowState<kDim>& chunk, uint32_t queries, uint32_t keys, uint32_t values,
                         int first_key, const int (&positions)[2], float scale) {
  const int lane = threadIdx.x % 32;
  const int row = static_cast<int>(threadIdx.x / 32) * 16 + (lane & 15);
  TileScores scores = {};
  constexpr uint32_t kHalfBytes = kHalfKeys * kDim * 2;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    score_half<kDim>(scores + half * (kKeyGroups / 2), keys + half * kHalfBytes, lane,
                     [&](int step, uint32_t(&a)[4]) {
                       load_matrices(a, queries + tile_offset<kDim>(row, 2 * step + (lane >> 4)));
                     });
  }
  TileProbabilities probabilities;
  weigh_tile<kDim>(chunk, scores, probabilities, first_key, positions, scale, lane);
#pragma unroll
  for (int half = 0; half < 2; ++half)
    add_half<kDim>(chunk, probabilities + half * 2, values + half * kHalfBytes, lane);
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
    if (i % kTilesPerChunk == kTilesPerChunk - 1 || i == tiles - 1) {
      gather_sums(chunk.weights);
      merge_chunk(total, chunk);
      chunk = RowState<kDim>{};
    }
  }
  write_rows<kDim>(attention, tile, kv_head, group, warp_row, total);
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
  prepare_wgmma_prefill();
}

int32_t prefill_tile_rows(const AttentionShape& shape) {
  return kRows / (shape.num_heads / shape.num_kv_heads);
}

void attention_prefill(const AttentionArgs& args, const QueryTile* tiles, int32_t num_tiles,
                       Stream stream) {
  CHECK(attention_supports(args.shape));
  const PrefillArgs all = {args, tiles};
  if (prefill_with_wgmma(all, num_tiles, stream)) return;
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
