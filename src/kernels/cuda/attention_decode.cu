// SPDX-License-Identifier: Apache-2.0
// Decode attention: a warp takes one chunk of one row for one KV head; its query heads are the rows
// of a 16-row tile. Warps share nothing: each keeps a ring of tiles in shared memory that copies
// run ahead into, over the end of an item too, so that memory is read all the time. On
// Hopper a block's keys or values of one head are one copy. Chunks are merged by a kernel of their
// own: a warp that waits for others' chunks reads nothing meanwhile, which cost a third of the
// memory's speed.
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
constexpr int kSharedBytes = kSlots*(kSlotBytes<kDim> + 8);  // the ring, then its barriers

struct DecodeArgs {
  AttentionArgs attention;
  UnrotatedRows unrotated;
  DecodeRows rows;
  DecodeScratch scratch;
};

// One item for one KV head.
struct Work {
  DecodeItem item;
  int kv_head;
  int tiles;
};

__device__ inline Work work_at(const DecodeArgs& args, int index) {
  const int kv_heads = args.attention.shape.num_kv_heads;
  Work work = {args.rows.items[index / kv_heads], index % kv_heads, 0};
  const int keys = min(work.item.position + 1 - work.item.chunk * kChunkKeys, kChunkKeys);
  work.tiles = (keys + kTileKeys - 1) / kTileKeys;
  return work;
}

// Elements from the layer's start to a block's keys or values of one head.
template <int kDim>
__device__ inline int64_t block_offset(const AttentionShape& shape, int block, int kv_head,
                                       bool values) {
  return kv_cells(block, shape.num_kv_heads, kv_head, values) * kCellsPerBlock * kDim;
}

// Where the copies have got to: of each tile of each item of this warp two halves of keys, then two
// of values.
template <int kDim>
class Copies {
 public:
  __device__ Copies(const DecodeArgs& args, uint32_t ring, int first, int end)
      : args_(args), ring_(ring), index_(first), end_(end) {
    if (index_ < end_) take();
  }

  // Starts the next copy, into the slot that was read longest ago.
  __device__ void start_next() {
    if (index_ < end_) {
      copy(ring_ + slot_ * kSlotBytes<kDim>, barrier(slot_));
      slot_ = slot_ == kSlots - 1 ? 0 : slot_ + 1;
      part_ = (part_ + 1) % 4;
      tile_ += part_ == 0 ? 1 : 0;
      if (tile_ == work_.tiles) {
        index_ += static_cast<int>(gridDim.x);
        if (index_ < end_) take();
      }
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
  __device__ uint32_t barrier(int slot) const {
    return ring_ + kSlots * kSlotBytes<kDim> + slot * 8;
  }

  __device__ void take() {
    const int lane = threadIdx.x;
    work_ = work_at(args_, index_);
    tile_ = 0;
    const int block = work_.item.chunk * (kChunkKeys / kCellsPerBlock) + lane;
    const bool there =
        lane < kChunkKeys / kCellsPerBlock && block * kCellsPerBlock <= work_.item.position;
    block_ = there ? args_.attention.block_tables[work_.item.table_offset + block] : 0;
  }

  __device__ void copy(uint32_t to, uint32_t barrier) const {
    const int lane = threadIdx.x;
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
      copy_bulk(to + lane * kBlockBytes, args_.attention.kv + from, kBlockBytes, barrier);
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
  int index_;
  const int end_;
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
  const int lane = threadIdx.x;
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
  for (int pair = threadIdx.x; pair < kDim / 2; pair += kWarpThreads) {
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
  for (int i = first / kCellsPerBlock * kOfBlock + static_cast<int>(threadIdx.x);
       i < kHalfKeys * kUnits; i += kWarpThreads) {
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

// The chunk is all there is.
template <int kDim>
__device__ inline void write_out(const DecodeArgs& args, const Work& work, int group,
                                 const RowState<kDim>& chunk) {
  RowState<kDim> total;
  merge_chunk(total, chunk);  // into nothing, as prefill does
  const int lane = threadIdx.x;
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
  const int lane = threadIdx.x;
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

// Chunks of a row and KV head in rising order, some of them loaded at once; four columns a thread.
template <int kDim>
__global__ void merge_kernel(DecodeArgs args) {
  constexpr int kAtOnce = 16;
  wait_for_previous_kernel();
  const int row = static_cast<int>(blockIdx.x);
  const int kv_head = static_cast<int>(blockIdx.y);
  const int chunks = args.rows.positions[row] / kChunkKeys + 1;
  if (chunks == 1) return;
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
__global__ void __launch_bounds__(kWarpThreads) decode_kernel(DecodeArgs args) {
  extern __shared__ __align__(128) unsigned char memory[];
  let_next_kernel_start();
  const uint32_t ring = shared_address(memory);
  const AttentionShape& shape = args.attention.shape;
  const int group = shape.num_heads / shape.num_kv_heads;
  const int end = *args.rows.num_items * shape.num_kv_heads;
  const bool unrotated = args.unrotated.qkv != nullptr;
  const int lane = threadIdx.x;
  if (lane < kSlots) init_copy_barrier(ring + kSlots * kSlotBytes<kDim> + lane * 8);
  __syncwarp();
  // Without the rows' own keys, all that is copied was there before this step.
  if (!unrotated) wait_for_kernels_before();
  Copies<kDim> copies(args, ring, static_cast<int>(blockIdx.x), end);
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
  for (int index = static_cast<int>(blockIdx.x); index < end;
       index += static_cast<int>(gridDim.x)) {
    const Work work = work_at(args, index);
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
    if (work.item.position < kChunkKeys) {
      write_out<kDim>(args, work, group, chunk);
    } else {
      write_partial<kDim>(args, work, group, chunk);
    }
  }
}

template <int kDim>
void launch_decode(const DecodeArgs& args, int32_t warps, Stream stream) {
  const AttentionShape& shape = args.attention.shape;
  const auto kernel =
      shape.num_heads / shape.num_kv_heads <= 8 ? decode_kernel<kDim, 1> : decode_kernel<kDim, 2>;
  launch(kernel, dim3(static_cast<unsigned>(warps)), kWarpThreads, kSharedBytes<kDim>, stream,
         args);
  const dim3 grid(static_cast<unsigned>(args.rows.num_rows),
                  static_cast<unsigned>(shape.num_kv_heads));
  const auto quads = static_cast<unsigned>(shape.num_heads / shape.num_kv_heads * kDim / 4);
  launch(merge_kernel<kDim>, grid, quads, 0, stream, args);
}

template <int kDim>
void raise_limit() {
  for (const auto kernel : {decode_kernel<kDim, 1>, decode_kernel<kDim, 2>}) {
    check_device(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                      kSharedBytes<kDim>),
                 "decode attention's shared memory");
  }
}

}  // namespace

void prepare_prefill_attention();  // attention_prefill.cu

void prepare_attention() {
  raise_limit<16>();
  raise_limit<32>();
  raise_limit<64>();
  raise_limit<128>();
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
                      const DecodeRows& rows, const DecodeScratch& scratch, int32_t warps,
                      Stream stream) {
  CHECK(attention_supports(args.shape));
  const DecodeArgs all = {args, unrotated, rows, scratch};
  switch (args.shape.head_dim) {
    case 16:
      return launch_decode<16>(all, warps, stream);
    case 32:
      return launch_decode<32>(all, warps, stream);
    case 64:
      return launch_decode<64>(all, warps, stream);
    default:
      return launch_decode<128>(all, warps, stream);
  }
}

}  // namespace puna::kernels::cuda
