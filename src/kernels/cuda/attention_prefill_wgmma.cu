// SPDX-License-Identifier: Apache-2.0
// Prefill attention on Hopper: two warpgroups of 64 query rows each multiply with wgmma, and a warp
// beside them keeps a ring of keys and values full. A warpgroup asks for the next tile's scores and
// for this tile's values at once and weighs the former while the latter are multiplied; the two
// warpgroups take turns in asking, so that one weighs while the other has the tensor cores. The
// arithmetic is attention_tile.cuh's, and so are the bits.
// Source of the schedule: FlashAttention-3 (Shah et al. 2024).
#include "kernels/cuda/attention_prefill.cuh"
#include "kernels/cuda/bulk_copy.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace puna::kernels::cuda {
namespace {

constexpr int kGroupThreads = 128;  // of a warpgroup
constexpr int kGroupRows = 64;
constexpr int kGroups = kPrefillRows / kGroupRows;
constexpr int kThreads = kGroupThreads * (1 + kGroups);  // the first warpgroup copies
constexpr int kStages = 4;                               // of the ring: tiles of keys and values
constexpr int kTilesPerChunk = kChunkKeys / kTileKeys;
constexpr int kBlocksPerTile = kTileKeys / kCellsPerBlock;

// Addresses in shared memory.
template <int kDim>
struct Shared {
  static constexpr int kSlabs = kDim / 64;
  static constexpr int kRowBytes = kDim * 2;
  static constexpr int kTile = kTileKeys * kRowBytes;
  static constexpr int kRing = kPrefillRows * kRowBytes;  // after the queries
  static constexpr int kBarriers = kRing + kStages * 2 * kTile;
  static constexpr int kAlignment = 1024;
  static constexpr int kBytes = kBarriers + (4 * kStages + 1) * 8 + kAlignment;

  uint32_t start;

  __device__ uint32_t ring() const { return start + kRing; }
  // Bytes from there.
  static constexpr __device__ uint32_t tile(int stage, bool values) {
    return (2 * stage + (values ? 1 : 0)) * kTile;
  }
  __device__ uint32_t full(int stage, bool values) const {
    return start + kBarriers + (4 * stage + (values ? 1 : 0)) * 8;
  }
  __device__ uint32_t empty(int stage, bool values) const { return full(stage, values) + 16; }
  __device__ uint32_t tail() const { return start + kBarriers + 4 * kStages * 8; }
};

// What a block has to do.
struct Work {
  QueryTile tile;
  int kv_head;
  int group;  // query heads of the KV head
  int end;    // of the keys
  int tiles;
};

__device__ inline void store_unit(uint32_t to, uint4 unit) {
  asm volatile("st.shared.v4.b32 [%0], {%1,%2,%3,%4};" ::"r"(to), "r"(unit.x), "r"(unit.y),
               "r"(unit.z), "r"(unit.w)
               : "memory");
}

// One warp: each tile's keys or its values.
template <int kDim>
__device__ inline void copy_tiles(const AttentionArgs& attention, const Work& work,
                                  const Shared<kDim>& shared, bool values) {
  constexpr int kBlockBytes = kCellsPerBlock * Shared<kDim>::kRowBytes;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int32_t* table = attention.block_tables + work.tile.table_offset;
  for (int i = 0; i < work.tiles; ++i) {
    const int stage = i % kStages;
    const int keys = min(work.end - i * kTileKeys, kTileKeys);
    const int blocks = (keys + kCellsPerBlock - 1) / kCellsPerBlock;
    const int block = lane < blocks ? table[i * kBlocksPerTile + lane] : 0;
    if (i >= kStages) wait_for_bytes(shared.empty(stage, values), (i / kStages - 1) % 2);
    const uint32_t full = shared.full(stage, values);
    // Values behind the last key must not be multiplied with, not even with zero.
    const bool clear = values && keys < kTileKeys;
    const uint32_t barrier = clear ? shared.tail() : full;
    if (lane == 0) expect_bytes(barrier, blocks * kBlockBytes);
    __syncwarp();
    const uint32_t to = shared.ring() + Shared<kDim>::tile(stage, values);
    if (lane < blocks) {
      const int64_t cells = kv_cells(block, attention.shape.num_kv_heads, work.kv_head, values);
      copy_bulk(to + lane * kBlockBytes, attention.kv + cells * (kBlockBytes / 2), kBlockBytes,
                barrier);
    }
    if (clear) {
      constexpr int kUnits = kDim / kUnitElements;
      wait_for_bytes(barrier, 0);
      for (int at = keys * kUnits + lane; at < kTileKeys * kUnits; at += 32)
        store_unit(to + tile_offset<kDim>(at / kUnits, at % kUnits), {0, 0, 0, 0});
      fence_before_copies();
      __syncwarp();
      if (lane == 0) arrive(full);
    }
  }
}

// A warpgroup's query rows, zeros where there are none.
template <int kDim>
__device__ inline void load_queries(const AttentionArgs& attention, const Work& work,
                                    const Shared<kDim>& shared, int first_row) {
  constexpr int kUnits = kDim / kUnitElements;
  constexpr int kTurns = kGroupRows * kUnits / kGroupThreads;
  const int thread = static_cast<int>(threadIdx.x) % kGroupThreads;
  uint4 values[kTurns];  // so that all are under way at once
#pragma unroll
  for (int turn = 0; turn < kTurns; ++turn) {
    const int i = turn * kGroupThreads + thread;
    const int row = first_row + i / kUnits;
    const int step_row = row / work.group;
    const int64_t from = (int64_t{work.tile.first_row + step_row} * attention.shape.num_heads +
                          work.kv_head * work.group + row % work.group) *
                             kUnits +
                         i % kUnits;
    values[turn] = step_row < work.tile.num_rows
                       ? reinterpret_cast<const uint4*>(attention.queries)[from]
                       : uint4{0, 0, 0, 0};
  }
#pragma unroll
  for (int turn = 0; turn < kTurns; ++turn) {
    const int i = turn * kGroupThreads + thread;
    store_unit(shared.start + tile_offset<kDim>(first_row + i / kUnits, i % kUnits), values[turn]);
  }
}

// The same for all threads of a warp, and so that the compiler knows.
__device__ inline int uniform(int value) { return __shfl_sync(~0U, value, 0); }

// One warpgroup's walk over the keys.
template <int kDim>
class Rows {
 public:
  __device__ Rows(const Work& work, const Shared<kDim>& shared, int which, float scale)
      : shared_(shared),
        queries_(shared.start + which * kGroupRows * Shared<kDim>::kRowBytes, Shared<kDim>::kSlabs),
        ring_(shared.ring(), Shared<kDim>::kSlabs),
        tiles_(uniform(work.tiles)),
        which_(which),
        scale_(scale),
        lane_(static_cast<int>(threadIdx.x) % 32),
        warp_row_(static_cast<int>(threadIdx.x - kGroupThreads) / 32 * 16) {
    const auto position_of = [&](int row) { return work.tile.first_position + row / work.group; };
    whole_tiles_ = uniform(min((position_of(which * kGroupRows) + 1) / kTileKeys, tiles_));
#pragma unroll
    for (int half = 0; half < 2; ++half)
      positions_[half] = position_of(warp_row_ + lane_ / 4 + 8 * half);
  }

  __device__ int warp_row() const { return warp_row_; }
  __device__ const RowState<kDim>& total() const { return total_; }

  __device__ void walk() {
    if (which_ == 1) give_turn();
    float shrink[2];
    ask_for_scores(0);
    wait_for_products<0>();
    pin_results(scores_);
    release(0, false);
    weigh_scores(chunk_.weights, shrink, scores_, 0, positions_, scale_, lane_);
    pack_tile(probabilities_, scores_);
    int tile = 0;
    for (; tile < whole_tiles_ - 1; ++tile) step<false>(tile);
    for (; tile < tiles_ - 1; ++tile) step<true>(tile);
    ask_for_values(tile);
    wait_for_products<0>();
    pin_results(chunk_.out);
    gather_sums(chunk_.weights);
    merge_chunk(total_, chunk_);
  }

 private:
  __device__ void take_turn() const { sync_threads(1 + which_, kGroups * kGroupThreads); }
  __device__ void give_turn() const { arrive_threads(2 - which_, kGroups * kGroupThreads); }

  __device__ void release(int tile, bool values) const {
    if (lane_ == 0) arrive(shared_.empty(tile % kStages, values));
  }

  __device__ void ask_for_scores(int tile) {
    wait_for_bytes(shared_.full(tile % kStages, false), tile / kStages % 2);
    const uint32_t keys = Shared<kDim>::tile(tile % kStages, false);
    pin_results(scores_);
    begin_products();
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
      const uint32_t columns = k / 4 * SwizzledTile::kSlabBytes + k % 4 * 32;
      multiply_lines(scores_, queries_.at(columns), ring_.at(keys + columns), k > 0);
    }
    commit_products();
  }

  __device__ void ask_for_values(int tile) {
    wait_for_bytes(shared_.full(tile % kStages, true), tile / kStages % 2);
    const uint32_t values = Shared<kDim>::tile(tile % kStages, true);
    pin_results(chunk_.out);
    begin_products();
#pragma unroll
    for (int k = 0; k < kTileKeys / 16; ++k) {
      multiply_columns(chunk_.out, probabilities_[k],
                       ring_.at(values + k * 16 * Shared<kDim>::kRowBytes),
                       k > 0 || tile % kTilesPerChunk > 0);
    }
    commit_products();
  }

  // This tile's values, the next one's scores and probabilities.
  template <bool kMasked>
  __device__ void step(int tile) {
    const int next = tile + 1;
    take_turn();
    ask_for_scores(next);
    ask_for_values(tile);
    if (which_ == 0 || next + 1 < tiles_) give_turn();
    wait_for_products<1>();
    pin_results(scores_);
    release(next, false);
    const bool chunk_ends = next % kTilesPerChunk == 0;
    RowWeights weights = chunk_ends ? RowWeights{} : chunk_.weights;
    float shrink[2];
    weigh_scores<2, kMasked>(weights, shrink, scores_, next * kTileKeys, positions_, scale_, lane_);
    wait_for_products<0>();
    pin_results(chunk_.out);
    release(tile, true);
    if (chunk_ends) {
      gather_sums(chunk_.weights);
      merge_chunk(total_, chunk_);
    } else {
      shrink_rows(chunk_, shrink);
    }
    chunk_.weights = weights;
    pack_tile(probabilities_, scores_);
  }

  const Shared<kDim> shared_;
  const SwizzledTile queries_;  // the warpgroup's
  const SwizzledTile ring_;
  const int tiles_;
  const int which_;  // of the two warpgroups
  const float scale_;
  const int lane_;
  const int warp_row_;  // of the warp's rows the first
  int whole_tiles_;     // before the warpgroup's first row: they need no mask
  int positions_[2];
  TileScores scores_ = {};
  TileProbabilities probabilities_;
  RowState<kDim> chunk_;
  RowState<kDim> total_;
};

template <int kDim>
__global__ void __launch_bounds__(kThreads, 1) wgmma_kernel(PrefillArgs args) {
  extern __shared__ unsigned char memory[];
  wait_for_previous_kernel();
  const AttentionArgs& attention = args.attention;
  constexpr uint32_t kAlignment = Shared<kDim>::kAlignment;
  const Shared<kDim> shared = {(shared_address(memory) + kAlignment - 1) / kAlignment * kAlignment};
  // The last tiles have the most keys: they go first.
  Work work = {args.tiles[gridDim.x - 1 - blockIdx.x], static_cast<int>(blockIdx.y),
               attention.shape.num_heads / attention.shape.num_kv_heads, 0, 0};
  work.end = work.tile.first_position + work.tile.num_rows;
  work.tiles = (work.end + kTileKeys - 1) / kTileKeys;
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < kStages; ++stage) {
      for (const bool values : {false, true}) {
        init_copy_barrier(shared.full(stage, values));
        init_copy_barrier(shared.empty(stage, values), kGroups * 4);
      }
    }
    init_copy_barrier(shared.tail());
  }
  __syncthreads();
  if (threadIdx.x < kGroupThreads) {
    leave_registers<24>();
    if (threadIdx.x < 64) copy_tiles<kDim>(attention, work, shared, threadIdx.x >= 32);
  } else {
    take_registers<240>();
    const int which = uniform(static_cast<int>(threadIdx.x) / kGroupThreads) - 1;
    Rows<kDim> rows(work, shared, which, __fmul_rn(attention.scale, kLog2E));
    load_queries<kDim>(attention, work, shared, which * kGroupRows);
    fence_before_copies();
    sync_threads(3 + which, kGroupThreads);
    rows.walk();
    write_rows<kDim>(attention, work.tile, work.kv_head, work.group, rows.warp_row(), rows.total());
  }
}

template <int kDim>
void launch_wgmma(const PrefillArgs& args, int32_t num_tiles, Stream stream) {
  const dim3 grid(static_cast<unsigned>(num_tiles),
                  static_cast<unsigned>(args.attention.shape.num_kv_heads));
  launch(wgmma_kernel<kDim>, grid, kThreads, Shared<kDim>::kBytes, stream, args);
}

// Whether this GPU runs the code for sm_90a, not what was made from the PTX of another one.
bool runs_here() {
  static const bool result = [] {
    cudaFuncAttributes attributes = {};
    check_device(cudaFuncGetAttributes(&attributes, wgmma_kernel<128>), "a kernel's attributes");
    return attributes.ptxVersion == 90 && attributes.binaryVersion == 90;
  }();
  return result;
}

template <int kDim>
void raise_limit() {
  check_device(cudaFuncSetAttribute(wgmma_kernel<kDim>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    Shared<kDim>::kBytes),
               "prefill attention's shared memory");
}

}  // namespace

void prepare_wgmma_prefill() {
  if (!runs_here()) return;
  raise_limit<64>();
  raise_limit<128>();
}

bool prefill_with_wgmma(const PrefillArgs& args, int32_t num_tiles, Stream stream) {
  if (!runs_here()) return false;
  switch (args.attention.shape.head_dim) {
    case 64:
      launch_wgmma<64>(args, num_tiles, stream);
      return true;
    case 128:
      launch_wgmma<128>(args, num_tiles, stream);
      return true;
    default:
      return false;
  }
}

}  // namespace puna::kernels::cuda
