// SPDX-License-Identifier: Apache-2.0
// Decode attention: a warp takes one chunk of one row for one KV head; its query heads are the rows
// of a 16-row tile. Each warp keeps a ring of tiles in shared memory that copies run ahead into,
// over the end of a chunk too, so that memory is read all the time. On Hopper a block's keys or
// values of one head are one copy.
//
// Where there are rows enough, a thread block takes all chunks of a row for one KV head and its
// warps merge them in turn, in shared memory; a warp that waits for its turn has its next chunk on
// the way. Else a row's chunks are spread over thread blocks and a second kernel merges them:
// waiting for another block's chunks cost a third of the memory's speed.
#include "base/check.h"
#include "kernels/cuda/attention_tile.cuh"
#include "kernels/cuda/bulk_copy.cuh"
#include "kernels/cuda/elementwise.cuh"
#include "kernels/cuda/launch.cuh"

namespace puna::kernels::cuda {
namespace {

constexpr int kWarpThreads = 32;
constexpr int kSlots = 3;  // of the ring: the keys or the values of half a tile each
constexpr int kBlocksPerHalf = kHalfKeys / kCellsPerBlock;
static_assert(kChunkKeys / kCellsPerBlock <= kWarpThreads);  // a lane for each block of a chunk

template <int kDim>
constexpr int kSlotBytes = kHalfKeys* kDim * 2;
template <int kDim>
constexpr int kRingBytes = kSlots* kSlotBytes<kDim>;
constexpr int kBarrierBytes = kSlots * 8;  // of a ring
constexpr int kMostWarps = 8;

// What is merged so far of the row that a thread block is at, as a warp's threads hold it.
template <int kDim, int kHalves>
struct Merged {
  float2 out[kHalves][kDim / 8][kWarpThreads];
  float maximum[kHalves][kWarpThreads];
  float sum[kHalves][kWarpThreads];
  uint64_t turns[kMostWarps];  // a barrier for each warp, whose phases are its chunks
};
// A ring for each warp, their barriers, then what several merge into.
template <int kDim, int kHalves>
constexpr int shared_bytes(int warps) {
  return warps * (kRingBytes<kDim> + kBarrierBytes) +
         (warps == 1 ? 0 : static_cast<int>(sizeof(Merged<kDim, kHalves>)));
}

__device__ inline void init_turn(uint64_t* turn) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(turn)), "r"(kWarpThreads)
               : "memory");
}
__device__ inline void give_turn(uint64_t* turn) {
  asm volatile(
      "{ .reg .b64 state; mbarrier.arrive.shared.b64 state, [%0]; }" ::"r"(shared_address(turn))
      : "memory");
}
__device__ inline void wait_for_turn(const uint64_t* turn, int phase) {
  uint32_t there = 0;
  while (there == 0) {
    asm volatile(
        "{ .reg .pred done; mbarrier.test_wait.parity.shared.b64 done, [%1], %2; "
        "selp.u32 %0, 1, 0, done; }"
        : "=r"(there)
        : "r"(shared_address(turn)), "r"(phase % 2)
        : "memory");
  }
}

__device__ inline int lane_of_thread() { return static_cast<int>(threadIdx.x) % kWarpThreads; }

struct DecodeArgs {
  AttentionArgs attention;
  UnrotatedRows unrotated;
  DecodeRows rows;
  DecodeScratch scratch;
};

// One chunk for one KV head.
struct Work {
  DecodeItem item;
  int kv_head;
  int tiles;
  int number;  // of the chunk among the block's, where it takes rows
};

// The chunks of a warp, one after the other. Items go round the thread blocks, to and fro where
// they are whole rows, longest first; the chunks that a block has got go round its warps.
class Chunks {
 public:
  __device__ explicit Chunks(const DecodeArgs& args)
      : args_(args),
        end_(args.rows.work->num_items * args.attention.shape.num_kv_heads),
        whole_rows_(args.rows.work->whole_rows != 0),
        warps_(static_cast<int>(blockDim.x) / kWarpThreads),
        next_(static_cast<int>(threadIdx.x) / kWarpThreads) {}
  __device__ bool whole_rows() const { return whole_rows_; }

  __device__ bool take(Work& work) {
    if (!whole_rows_) {
      const int index = next_ * static_cast<int>(gridDim.x) + static_cast<int>(blockIdx.x);
      next_ += warps_;
      if (index >= end_) return false;
      set_item(work, index);
      set_tiles(work);
      return true;
    }
    while (next_ >= before_ + chunks_) {
      const int round = round_++;
      const auto blocks = static_cast<int>(gridDim.x);
      const auto block = static_cast<int>(blockIdx.x);
      const int index = round * blocks + (round % 2 == 0 ? block : blocks - 1 - block);
      if (index >= end_) return false;
      set_item(row_, index);
      before_ += chunks_;
      chunks_ = row_.item.position / kChunkKeys + 1;
    }
    work = row_;
    work.item.chunk = next_ - before_;
    work.number = next_;
    next_ += warps_;
    set_tiles(work);
    return true;
  }

 private:
  __device__ void set_item(Work& work, int index) const {
    const int kv_heads = args_.attention.shape.num_kv_heads;
    work.item = args_.rows.items[index / kv_heads];
    work.kv_head = index % kv_heads;
  }
  __device__ static void set_tiles(Work& work) {
    const int keys = min(work.item.position + 1 - work.item.chunk * kChunkKeys, kChunkKeys);
    work.tiles = (keys + kTileKeys - 1) / kTileKeys;
  }

  const DecodeArgs& args_;
  const int end_;
  const bool whole_rows_;
  const int warps_;
  int next_;  // the number, among the block's, of the warp's next item or chunk
  Work row_ = {};
  int before_ = 0;  // the block's chunks before those of row_
  int chunks_ = 0;  // of row_
  int round_ = 0;
};

// Elements from the layer's start to a block's keys or values of one head.
template <int kDim>
__device__ inline int64_t block_offset(const AttentionShape& shape, int block, int kv_head,
                                       bool values) {
  return kv_cells(block, shape.num_kv_heads, kv_head, values) * kCellsPerBlock * kDim;
}

// Where the copies have got to: of each tile of each chunk of this warp two halves of keys, then
// two of values.
template <int kDim>
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
      copy_bulk_once(to + lane * kBlockBytes, args_.attention.kv + from, kBlockBytes, barrier);
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

// Floats of a chunk's results: values, then maximum and sum of each head; rounded up for float4.
__host__ __device__ constexpr int partial_size(int group, int dim) {
  return (group * (dim + 2) + 3) / 4 * 4;
}

__device__ inline float* partial_of(const DecodeArgs& args, int row, int kv_head, int chunk,
                                    int group, int dim) {
  const int64_t index =
      (int64_t{row} * args.attention.shape.num_kv_heads + kv_head) * args.scratch.max_chunks +
      chunk;
  return args.scratch.partials + index * partial_size(group, dim);
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

template <int kDim>
__device__ inline void write_partial(const DecodeArgs& args, const Work& work, int group,
                                     const RowState<kDim>& chunk) {
  const int lane = lane_of_thread();
  float* partial = partial_of(args, work.item.row, work.kv_head, work.item.chunk, group, kDim);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int head = lane / 4 + 8 * half;
    if (head >= group) continue;
#pragma unroll
    for (int i = 0; i < kDim / 8; ++i) {
      *reinterpret_cast<float2*>(partial + head * kDim + 8 * i + 2 * (lane % 4)) = {
          chunk.out[i][2 * half], chunk.out[i][2 * half + 1]};
    }
    if (lane % 4 == 0) {
      partial[group * kDim + head] = chunk.weights.maximum[half];
      partial[group * kDim + group + head] = chunk.weights.sum[half];
    }
  }
}

// The chunk into those before it, when they have been: by the block's warps in the order of their
// chunks. The last one of a row writes it out.
template <int kDim, int kHalves>
__device__ inline void merge_in_turn(const DecodeArgs& args, const Work& work, int group,
                                     const RowState<kDim>& chunk, Merged<kDim, kHalves>& merged) {
  const int lane = lane_of_thread();
  const int warps = static_cast<int>(blockDim.x) / kWarpThreads;
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  wait_for_turn(&merged.turns[warp], work.number / warps);
  RowState<kDim> total;
  if (work.item.chunk > 0) {
#pragma unroll
    for (int half = 0; half < kHalves; ++half) {
      total.weights.maximum[half] = merged.maximum[half][lane];
      total.weights.sum[half] = merged.sum[half][lane];
#pragma unroll
      for (int i = 0; i < kDim / 8; ++i) {
        const float2 out = merged.out[half][i][lane];
        total.out[i][2 * half] = out.x;
        total.out[i][2 * half + 1] = out.y;
      }
    }
  }
  merge_chunk(total, chunk);
  const bool last = work.item.position / kChunkKeys == work.item.chunk;
  if (!last) {
#pragma unroll
    for (int half = 0; half < kHalves; ++half) {
      merged.maximum[half][lane] = total.weights.maximum[half];
      merged.sum[half][lane] = total.weights.sum[half];
#pragma unroll
      for (int i = 0; i < kDim / 8; ++i)
        merged.out[half][i][lane] = {total.out[i][2 * half], total.out[i][2 * half + 1]};
    }
  }
  give_turn(&merged.turns[(warp + 1) % warps]);
  if (last) write_out<kDim>(args, work, group, total);
}

// Chunks of a row and KV head in rising order, some of them loaded at once; four columns a thread.
template <int kDim>
__global__ void merge_kernel(DecodeArgs args) {
  constexpr int kAtOnce = 16;
  wait_for_previous_kernel();
  const int row = static_cast<int>(blockIdx.x);
  const int kv_head = static_cast<int>(blockIdx.y);
  const int chunks = args.rows.positions[row] / kChunkKeys + 1;
  if (chunks == 1 || args.rows.work->whole_rows != 0) return;
  const AttentionShape& shape = args.attention.shape;
  const int group = shape.num_heads / shape.num_kv_heads;
  const int quad = static_cast<int>(threadIdx.x);
  const int head = quad * 4 / kDim;
  float maximum = -INFINITY;
  float sum = 0.0F;
  float4 total = {0.0F, 0.0F, 0.0F, 0.0F};
  for (int first = 0; first < chunks; first += kAtOnce) {
    float4 part[kAtOnce];
    float part_maximum[kAtOnce];
    float part_sum[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (first + i >= chunks) break;
      const float* partial = partial_of(args, row, kv_head, first + i, group, kDim);
      part[i] = __ldcg(reinterpret_cast<const float4*>(partial) + quad);
      part_maximum[i] = __ldcg(partial + group * kDim + head);
      part_sum[i] = __ldcg(partial + group * kDim + group + head);
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (first + i >= chunks) break;
      const MergeFactors factors = merge_factors(maximum, part_maximum[i]);
      sum = merged(sum, part_sum[i], factors);
      total = {merged(total.x, part[i].x, factors), merged(total.y, part[i].y, factors),
               merged(total.z, part[i].z, factors), merged(total.w, part[i].w, factors)};
    }
  }
  reinterpret_cast<uint2*>(out_of(args, row, kv_head, group, kDim))[quad] = {
      to_half_pair(normalised(total.x, sum), normalised(total.y, sum)),
      to_half_pair(normalised(total.z, sum), normalised(total.w, sum))};
}

// kHalves 1: at most eight query heads for a KV head.
template <int kDim, int kHalves>
__global__ void __launch_bounds__(kMostWarps* kWarpThreads) decode_kernel(DecodeArgs args) {
  extern __shared__ __align__(128) unsigned char block_memory[];
  let_next_kernel_start();
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int warps = static_cast<int>(blockDim.x) / kWarpThreads;
  unsigned char* const memory = block_memory + warp * kRingBytes<kDim>;
  auto& merged = *reinterpret_cast<Merged<kDim, kHalves>*>(
      block_memory + warps * (kRingBytes<kDim> + kBarrierBytes));
  const uint32_t ring = shared_address(memory);
  const uint32_t barriers =
      shared_address(block_memory + warps * kRingBytes<kDim> + warp * kBarrierBytes);
  const AttentionShape& shape = args.attention.shape;
  const int group = shape.num_heads / shape.num_kv_heads;
  const bool unrotated = args.unrotated.qkv != nullptr;
  const int lane = lane_of_thread();
  if (lane < kSlots) init_copy_barrier(barriers + lane * 8);
  if (lane == 0 && warps > 1) init_turn(&merged.turns[warp]);
  __syncthreads();
  if (warp == 0 && warps > 1) give_turn(&merged.turns[0]);
  // Without the rows' own keys, all that is copied was there before this step.
  if (!unrotated) wait_for_kernels_before();
  Chunks chunks(args);
  Copies<kDim> copies(args, chunks, ring, barriers);
#pragma unroll
  for (int i = 0; i < kSlots; ++i) copies.start_next();
  if (unrotated) wait_for_kernels_before();
  const float scale = __fmul_rn(args.attention.scale, kLog2E);
  int slot = 0;
  uint32_t round = 0;
  const auto next_slot = [&] {
    slot = slot == kSlots - 1 ? 0 : slot + 1;
    round += slot == 0 ? 1 : 0;
    __syncwarp();  // all have read it
    copies.start_next();
  };
  for (Work work; chunks.take(work);) {
    const int positions[2] = {work.item.position, work.item.position};
    uint32_t queries[kDim / 16][4];
    load_queries<kDim>(queries, args, work, group);
    RowState<kDim> chunk;
    for (int tile = 0; tile < work.tiles; ++tile) {
      const int first_key = work.item.chunk * kChunkKeys + tile * kTileKeys;
      const bool last = work.item.position - first_key < kTileKeys;
      TileScores scores = {};
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        copies.wait_for(slot, round);
        if (last && unrotated) {
          insert_own<kDim>(args, work, memory + slot * kSlotBytes<kDim>,
                           first_key + half * kHalfKeys, false);
          fence_before_copies();
          __syncwarp();
        }
        score_half<kDim>(scores + half * (kKeyGroups / 2), ring + slot * kSlotBytes<kDim>, lane,
                         [&](int step, uint32_t(&a)[4]) {
#pragma unroll
                           for (int i = 0; i < 4; ++i) a[i] = queries[step][i];
                         });
        next_slot();
      }
      TileProbabilities probabilities;
      weigh_tile<kDim, kHalves>(chunk, scores, probabilities, first_key, positions, scale, lane);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        copies.wait_for(slot, round);
        if (last) {
          unsigned char* const tile = memory + slot * kSlotBytes<kDim>;
          const int first_of_half = first_key + half * kHalfKeys;
          clear_values_behind<kDim>(work, tile, first_of_half);
          if (unrotated) insert_own<kDim>(args, work, tile, first_of_half, true);
          fence_before_copies();
          __syncwarp();
        }
        add_half<kDim>(chunk, probabilities + half * 2, ring + slot * kSlotBytes<kDim>, lane);
        next_slot();
      }
    }
    gather_sums<kHalves>(chunk.weights);
    if (chunks.whole_rows()) {
      merge_in_turn<kDim, kHalves>(args, work, group, chunk, merged);
    } else if (work.item.position < kChunkKeys) {
      RowState<kDim> total;
      merge_chunk(total, chunk);  // into nothing, as prefill does
      write_out<kDim>(args, work, group, total);
    } else {
      write_partial<kDim>(args, work, group, chunk);
    }
  }
}

// As many as the GPU has room for in a block's shared memory; eight on Hopper.
template <int kDim, int kHalves>
int most_warps() {
  static const int warps = [] {
    int device = 0;
    int most = 0;
    check_device(cudaGetDevice(&device), "asking for the device");
    check_device(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
                 "asking for shared memory");
    int fit = kMostWarps;
    while (shared_bytes<kDim, kHalves>(fit) > most) --fit;
    return fit;
  }();
  return warps;
}

// Warps by themselves find room beside the kernels before and after.
template <int kDim, int kHalves>
void launch_decode(const DecodeArgs& args, int32_t blocks, Stream stream) {
  const AttentionShape& shape = args.attention.shape;
  const bool few = args.rows.num_rows * shape.num_kv_heads < fewest_whole_rows(blocks);
  const int warps = few ? 1 : most_warps<kDim, kHalves>();
  const int32_t launched = few ? blocks * kMostWarps : blocks;
  launch(decode_kernel<kDim, kHalves>, dim3(static_cast<unsigned>(launched)),
         static_cast<unsigned>(warps * kWarpThreads), shared_bytes<kDim, kHalves>(warps), stream,
         args);
  const dim3 grid(static_cast<unsigned>(args.rows.num_rows),
                  static_cast<unsigned>(shape.num_kv_heads));
  const auto quads = static_cast<unsigned>(shape.num_heads / shape.num_kv_heads * kDim / 4);
  launch(merge_kernel<kDim>, grid, quads, 0, stream, args);
}

template <int kDim>
void launch_decode(const DecodeArgs& args, int32_t blocks, Stream stream) {
  const AttentionShape& shape = args.attention.shape;
  if (shape.num_heads / shape.num_kv_heads <= 8) {
    launch_decode<kDim, 1>(args, blocks, stream);
  } else {
    launch_decode<kDim, 2>(args, blocks, stream);
  }
}

template <int kDim, int kHalves>
void raise_limit() {
  check_device(cudaFuncSetAttribute(decode_kernel<kDim, kHalves>,
                                    cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    shared_bytes<kDim, kHalves>(most_warps<kDim, kHalves>())),
               "decode attention's shared memory");
}

template <int kDim>
void raise_limits() {
  raise_limit<kDim, 1>();
  raise_limit<kDim, 2>();
}

}  // namespace

void prepare_prefill_attention();  // attention_prefill.cu

void prepare_attention() {
  raise_limits<16>();
  raise_limits<32>();
  raise_limits<64>();
  raise_limits<128>();
  prepare_prefill_attention();
}

bool attention_supports(const AttentionShape& shape) {
  const int32_t dim = shape.head_dim;
  return (dim == 16 || dim == 32 || dim == 64 || dim == 128) &&
         shape.num_heads / shape.num_kv_heads <= kMaxGroup;
}

int64_t partial_floats(const AttentionShape& shape, int32_t rows, int32_t max_chunks) {
  return int64_t{rows} * shape.num_kv_heads * max_chunks *
         partial_size(shape.num_heads / shape.num_kv_heads, shape.head_dim);
}

void attention_decode(const AttentionArgs& args, const UnrotatedRows& unrotated,
                      const DecodeRows& rows, const DecodeScratch& scratch, int32_t blocks,
                      Stream stream) {
  CHECK(attention_supports(args.shape));
  const DecodeArgs all = {args, unrotated, rows, scratch};
  switch (args.shape.head_dim) {
    case 16:
      return launch_decode<16>(all, blocks, stream);
    case 32:
      return launch_decode<32>(all, blocks, stream);
    case 64:
      return launch_decode<64>(all, blocks, stream);
    default:
      return launch_decode<128>(all, blocks, stream);
  }
}

}  // namespace puna::kernels::cuda
