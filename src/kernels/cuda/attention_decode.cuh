// SPDX-License-Identifier: Apache-2.0
// What the kernels for decode attention share. A warp takes one chunk of one row for one KV head;
// its query heads are the rows of a 16-row tile. Each warp keeps a ring of tiles in shared memory
// that copies run ahead into, over the end of a chunk too, so that memory is read all the time. On
// Hopper a block's keys or values of one head are one copy.
#pragma once

#include "kernels/cuda/attention_tile.cuh"
#include "kernels/cuda/bulk_copy.cuh"
#include "kernels/cuda/elementwise.cuh"
#include "kernels/cuda/launch.cuh"

namespace puna::kernels::cuda {

constexpr int kWarpThreads = 32;
constexpr int kBlocksPerHalf = kHalfKeys / kCellsPerBlock;
static_assert(kChunkKeys / kCellsPerBlock <= kWarpThreads);  // a lane for each block of a chunk

template <int kDim>
constexpr int kSlotBytes = kHalfKeys* kDim * 2;
// Slots of the ring: the keys or the values of half a tile each.
template <int kDim, int kSlots>
constexpr int kRingBytes = kSlots* kSlotBytes<kDim>;
template <int kSlots>
constexpr int kBarrierBytes = kSlots * 8;  // of a ring

__device__ inline int lane_of_thread() { return static_cast<int>(threadIdx.x) % kWarpThreads; }

struct DecodeArgs {
  AttentionArgs attention;
  UnrotatedRows unrotated;
  DecodeRows rows;
  DecodeScratch scratch;
};

// Rows taken whole (attention_decode_rows.cu).
void decode_whole_rows(const DecodeArgs& args, int32_t blocks, Stream stream);
void prepare_whole_rows();

// One chunk for one KV head.
struct Work {
  DecodeItem item;
  int kv_head;
  int tiles;
};

// Item `index` for one of the KV heads, without its tiles.
__device__ inline Work work_at(const DecodeArgs& args, int index) {
  const int kv_heads = args.attention.shape.num_kv_heads;
  return {args.rows.items[index / kv_heads], index % kv_heads, 0};
}
__device__ inline void count_tiles(Work& work) {
  const int keys = min(work.item.position + 1 - work.item.chunk * kChunkKeys, kChunkKeys);
  work.tiles = (keys + kTileKeys - 1) / kTileKeys;
}

// Elements from the layer's start to a block's keys or values of one head.
template <int kDim>
__device__ inline int64_t block_offset(const AttentionShape& shape, int block, int kv_head,
                                       bool values) {
  return kv_cells(block, shape.num_kv_heads, kv_head, values) * kCellsPerBlock * kDim;
}

// Where the copies have got to: of each tile of each chunk of this warp two halves of keys, then
// two of values. Chunks::take(work) gives the warp's next chunk, or false.
template <int kDim, int kSlots, typename Chunks>
class Copies {
 public:
  __device__ Copies(const DecodeArgs& args, const Chunks& chunks, uint32_t ring, uint32_t barriers)
      : args_(args), ring_(ring), barriers_(barriers), chunks_(chunks) {
    take();
  }

  // Starts the next copy, into the slot that was read longest ago.
  __device__ void start_next() {
    if (some_) {
      copy(ring_ + slot_ * kSlotBytes<kDim>, barrier(slot_));
      slot_ = slot_ == kSlots - 1 ? 0 : slot_ + 1;
      part_ = (part_ + 1) % 4;
      tile_ += part_ == 0 ? 1 : 0;
      if (tile_ == work_.tiles) take();
    }
    if (!PUNA_BULK_COPY) commit_copies();
  }

  // Until the slot's copy of this round over the ring is there.
  __device__ void wait_for(int slot, uint32_t round) const {
    if (PUNA_BULK_COPY) {
      wait_for_bytes(barrier(slot), round % 2);
    } else {
      wait_for_copies<kSlots - 1>();
      __syncwarp();
    }
  }

 private:
  __device__ uint32_t barrier(int slot) const { return barriers_ + slot * 8; }

  __device__ void take() {
    some_ = chunks_.take(work_);
    if (!some_) return;
    const int lane = lane_of_thread();
    tile_ = 0;
    const int block = work_.item.chunk * (kChunkKeys / kCellsPerBlock) + lane;
    const bool there =
        lane < kChunkKeys / kCellsPerBlock && block * kCellsPerBlock <= work_.item.position;
    block_ = there ? args_.attention.block_tables[work_.item.table_offset + block] : 0;
  }

  __device__ void copy(uint32_t to, uint32_t barrier) const {
    const int lane = lane_of_thread();
    const int half = tile_ * 2 + part_ % 2;  // of the chunk
    const bool values = part_ >= 2;
    const int first_key = work_.item.chunk * kChunkKeys + half * kHalfKeys;
    // An unrotated row's own key is not there yet.
    const int end = work_.item.position + (args_.unrotated.qkv == nullptr ? 1 : 0);
#if PUNA_BULK_COPY
    constexpr int kBlockBytes = kCellsPerBlock * kDim * 2;
    const int blocks =
        min(max(end - first_key + kCellsPerBlock - 1, 0) / kCellsPerBlock, kBlocksPerHalf);
    if (lane == 0) expect_bytes(barrier, blocks * kBlockBytes);
    __syncwarp();
    const int block = __shfl_sync(~0U, block_, half * kBlocksPerHalf + lane % kBlocksPerHalf);
    if (lane < blocks) {
      const int64_t from = block_offset<kDim>(args_.attention.shape, block, work_.kv_head, values);
      copy_bulk(to + lane * kBlockBytes, args_.attention.kv + from, kBlockBytes, barrier, policy_);
    }
#else
    constexpr int kUnits = kDim / kUnitElements;
    constexpr int kTurns = kCellsPerBlock * kUnits / kWarpThreads;
#pragma unroll
    for (int i = 0; i < kBlocksPerHalf; ++i) {
      const int block = __shfl_sync(~0U, block_, half * kBlocksPerHalf + i);
      const Float16* from =
          args_.attention.kv +
          block_offset<kDim>(args_.attention.shape, block, work_.kv_head, values) +
          lane * kUnitElements;
#pragma unroll
      for (int turn = 0; turn < kTurns; ++turn) {
        const int unit = turn * kWarpThreads + lane;
        const int key = first_key + i * kCellsPerBlock + cell_of_place(unit, kUnits);
        copy_async(to + (i * kCellsPerBlock * kUnits + unit) * 16,
                   from + turn * kWarpThreads * kUnitElements, key < end);
      }
    }
#endif
  }

  const DecodeArgs& args_;
  const uint32_t ring_;
  const uint32_t barriers_;
  const uint64_t policy_ = read_once_policy();
  Chunks chunks_;
  bool some_ = false;
  Work work_ = {};
  int32_t block_ = 0;  // of this lane: its block of the chunk
  int tile_ = 0;
  int part_ = 0;
  int slot_ = 0;
};

// The queries of one row and KV head as left operands: head h is row h of 16.
template <int kDim>
__device__ inline void load_queries(uint32_t (&queries)[kDim / 16][4], const DecodeArgs& args,
                                    const Work& work, int group) {
  const int lane = lane_of_thread();
  const AttentionShape& shape = args.attention.shape;
  const bool rotate = args.unrotated.qkv != nullptr;
  const int64_t row_size = rotate ? int64_t{shape.num_heads + 2 * shape.num_kv_heads} * kDim
                                  : int64_t{shape.num_heads} * kDim;
  const Float16* row = (rotate ? args.unrotated.qkv : args.attention.queries) +
                       work.item.row * row_size + work.kv_head * group * kDim;
  const auto* rotations = reinterpret_cast<const float2*>(args.unrotated.rotations) +
                          int64_t{work.item.position} * (kDim / 2);
#pragma unroll
  for (int step = 0; step < kDim / 16; ++step) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int head = lane / 4 + 8 * (i % 2);
      const int pair = step * 8 + (i / 2) * 4 + lane % 4;
      uint32_t value = 0;
      if (head < group) {
        value = reinterpret_cast<const uint32_t*>(row + head * kDim)[pair];
        if (rotate) value = rotate_pair(value, rotations[pair]);
      }
      queries[step][i] = value;
    }
  }
}

// An unrotated row's own key or value: into its cell, and into the half tile from `first_key` on,
// which was copied without it.
template <int kDim>
__device__ inline void insert_own(const DecodeArgs& args, const Work& work, unsigned char* tile,
                                  int first_key, bool values) {
  const AttentionShape& shape = args.attention.shape;
  const int position = work.item.position;
  if (position < first_key || position >= first_key + kHalfKeys) return;
  const int own_cell = position % kCellsPerBlock;
  const int head = shape.num_heads + (values ? shape.num_kv_heads : 0) + work.kv_head;
  const auto* from = reinterpret_cast<const uint32_t*>(
      args.unrotated.qkv +
      (int64_t{work.item.row} * (shape.num_heads + 2 * shape.num_kv_heads) + head) * kDim);
  const auto* rotations =
      reinterpret_cast<const float2*>(args.unrotated.rotations) + int64_t{position} * (kDim / 2);
  const int block = args.attention.block_tables[work.item.table_offset + position / kCellsPerBlock];
  auto* cells = reinterpret_cast<uint32_t*>(args.unrotated.kv +
                                            block_offset<kDim>(shape, block, work.kv_head, values));
#pragma unroll
  for (int pair = lane_of_thread(); pair < kDim / 2; pair += kWarpThreads) {
    const uint32_t value = values ? from[pair] : rotate_pair(from[pair], rotations[pair]);
    const int unit = placed_unit(own_cell, pair / 4, kDim / kUnitElements);
    cells[unit * 4 + pair % 4] = value;
    *reinterpret_cast<uint32_t*>(tile + tile_offset<kDim>(position - first_key, pair / 4) +
                                 pair % 4 * 4) = value;
  }
}

// What lies behind the row's position must not be multiplied with, not even with zero.
template <int kDim>
__device__ inline void clear_values_behind(const Work& work, unsigned char* tile, int first_key) {
  constexpr int kUnits = kDim / kUnitElements;
  const int first = max(work.item.position + 1 - first_key, 0);
  constexpr int kOfBlock = kCellsPerBlock * kUnits;
  for (int i = first / kCellsPerBlock * kOfBlock + lane_of_thread(); i < kHalfKeys * kUnits;
       i += kWarpThreads) {
    if (i / kOfBlock * kCellsPerBlock + cell_of_place(i % kOfBlock, kUnits) >= first)
      reinterpret_cast<uint4*>(tile)[i] = {0, 0, 0, 0};
  }
}

__device__ inline Float16* out_of(const DecodeArgs& args, int row, int kv_head, int group,
                                  int dim) {
  return args.attention.out +
         (int64_t{row} * args.attention.shape.num_heads + kv_head * group) * dim;
}

template <int kDim>
__device__ inline void write_out(const DecodeArgs& args, const Work& work, int group,
                                 const RowState<kDim>& total) {
  const int lane = lane_of_thread();
  Float16* out = out_of(args, work.item.row, work.kv_head, group, kDim);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int head = lane / 4 + 8 * half;
    if (head >= group) continue;
#pragma unroll
    for (int i = 0; i < kDim / 8; ++i) {
      *reinterpret_cast<uint32_t*>(out + head * kDim + 8 * i + 2 * (lane % 4)) =
          to_half_pair(normalised(total.out[i][2 * half], total.weights.sum[half]),
                       normalised(total.out[i][2 * half + 1], total.weights.sum[half]));
    }
  }
}

// Of scores, in units of log 2.
__device__ inline float score_scale(const DecodeArgs& args) {
  return __fmul_rn(args.attention.scale, kLog2E);
}

// A warp's chunks of keys and values as they come, in its ring.
template <int kDim, int kHalves, int kSlots, typename Chunks>
class ChunkReader {
 public:
  __device__ ChunkReader(const DecodeArgs& args, const Chunks& chunks, unsigned char* memory,
                         uint32_t barriers)
      : args_(args),
        memory_(memory),
        ring_(shared_address(memory)),
        copies_(args, chunks, ring_, barriers),
        scale_(score_scale(args)) {
#pragma unroll
    for (int i = 0; i < kSlots; ++i) copies_.start_next();
  }

  // Attends the chunk, which is the next that comes; kernels before have been waited for.
  __device__ void attend(RowState<kDim>& chunk, const Work& work, int group) {
    const int lane = lane_of_thread();
    const bool unrotated = args_.unrotated.qkv != nullptr;
    const int positions[2] = {work.item.position, work.item.position};
    uint32_t queries[kDim / 16][4];
    load_queries<kDim>(queries, args_, work, group);
    for (int tile = 0; tile < work.tiles; ++tile) {
      const int first_key = work.item.chunk * kChunkKeys + tile * kTileKeys;
      const bool last = work.item.position - first_key < kTileKeys;
      TileScores scores = {};
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        copies_.wait_for(slot_, round_);
        if (last && unrotated) {
          insert_own<kDim>(args_, work, memory_ + slot_ * kSlotBytes<kDim>,
                           first_key + half * kHalfKeys, false);
          fence_before_copies();
          __syncwarp();
        }
        score_half<kDim>(scores + half * (kKeyGroups / 2), ring_ + slot_ * kSlotBytes<kDim>, lane,
                         [&](int step, uint32_t(&a)[4]) {
#pragma unroll
                           for (int i = 0; i < 4; ++i) a[i] = queries[step][i];
                         });
        next_slot();
      }
      TileProbabilities probabilities;
      weigh_tile<kDim, kHalves>(chunk, scores, probabilities, first_key, positions, scale_, lane);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        copies_.wait_for(slot_, round_);
        if (last) {
          unsigned char* const tile = memory_ + slot_ * kSlotBytes<kDim>;
          const int first_of_half = first_key + half * kHalfKeys;
          clear_values_behind<kDim>(work, tile, first_of_half);
          if (unrotated) insert_own<kDim>(args_, work, tile, first_of_half, true);
          fence_before_copies();
          __syncwarp();
        }
        add_half<kDim>(chunk, probabilities + half * 2, ring_ + slot_ * kSlotBytes<kDim>, lane);
        next_slot();
      }
    }
    gather_sums<kHalves>(chunk.weights);
  }

 private:
  __device__ void next_slot() {
    slot_ = slot_ == kSlots - 1 ? 0 : slot_ + 1;
    round_ += slot_ == 0 ? 1 : 0;
    __syncwarp();  // all have read it
    copies_.start_next();
  }

  const DecodeArgs& args_;
  unsigned char* const memory_;
  const uint32_t ring_;
  Copies<kDim, kSlots, Chunks> copies_;
  const float scale_;
  int slot_ = 0;
  uint32_t round_ = 0;
};

}  // namespace puna::kernels::cuda
