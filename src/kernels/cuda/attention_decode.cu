// SPDX-License-Identifier: Apache-2.0
// Decode attention with a row's chunks spread over warps that share nothing. A kernel of its own
// merges them: a warp that waits for others' chunks reads nothing meanwhile, which cost a third of
// the memory's speed. Where there are rows enough they are taken whole (attention_decode_rows.cu).
#include "base/check.h"
#include "kernels/cuda/attention_decode.cuh"

namespace puna::kernels::cuda {
namespace {

constexpr int kManySlots = 3;
constexpr int kFewSlots = 8;  // half of a chunk: what is read before the kernels before are done

template <int kDim, int kSlots>
constexpr int kSharedBytes = kRingBytes<kDim, kSlots> + kBarrierBytes<kSlots>;

// Every so-manieth of the items.
class EveryItem {
 public:
  __device__ explicit EveryItem(const DecodeArgs& args)
      : args_(args),
        index_(static_cast<int>(blockIdx.x)),
        end_(*args.rows.num_items * args.attention.shape.num_kv_heads) {}
  __device__ bool take(Work& work) {
    if (index_ >= end_) return false;
    work = work_at(args_, index_);
    count_tiles(work);
    index_ += static_cast<int>(gridDim.x);
    return true;
  }

 private:
  const DecodeArgs& args_;
  int index_;
  const int end_;
};

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
template <int kDim, int kHalves, int kSlots>
__global__ void __launch_bounds__(kWarpThreads) decode_kernel(DecodeArgs args) {
  extern __shared__ __align__(128) unsigned char memory[];
  let_next_kernel_start();
  const uint32_t barriers = shared_address(memory) + kRingBytes<kDim, kSlots>;
  const int group = args.attention.shape.num_heads / args.attention.shape.num_kv_heads;
  const bool unrotated = args.unrotated.qkv != nullptr;
  if (lane_of_thread() < kSlots) init_copy_barrier(barriers + lane_of_thread() * 8);
  __syncwarp();
  // Without the rows' own keys, all that is copied was there before this step.
  if (!unrotated) wait_for_kernels_before();
  EveryItem items(args);
  ChunkReader<kDim, kHalves, kSlots, EveryItem> reader(args, items, memory, barriers);
  if (unrotated) wait_for_kernels_before();
  for (Work work; items.take(work);) {
    RowState<kDim> chunk;
    reader.attend(chunk, work, group);
    if (work.item.position < kChunkKeys) {
      RowState<kDim> total;
      merge_chunk(total, chunk);  // into nothing, as prefill does
      write_out<kDim>(args, work, group, total);
    } else {
      write_partial<kDim>(args, work, group, chunk);
    }
  }
}

template <int kDim, int kSlots>
auto kernel_for(const AttentionShape& shape) {
  return shape.num_heads / shape.num_kv_heads <= 8 ? decode_kernel<kDim, 1, kSlots>
                                                   : decode_kernel<kDim, 2, kSlots>;
}

template <int kDim>
void launch_decode(const DecodeArgs& args, int32_t blocks, Stream stream) {
  const AttentionShape& shape = args.attention.shape;
  const auto launch_warps = [&](auto kernel, int32_t warps, int shared_bytes) {
    launch(kernel, dim3(static_cast<unsigned>(warps)), kWarpThreads,
           static_cast<size_t>(shared_bytes), stream, args);
  };
  if (args.rows.way == DecodeWay::kFewChunks) {
    launch_warps(kernel_for<kDim, kFewSlots>(shape), blocks * kFewWarps,
                 kSharedBytes<kDim, kFewSlots>);
  } else {
    launch_warps(kernel_for<kDim, kManySlots>(shape), blocks * kDecodeWarps,
                 kSharedBytes<kDim, kManySlots>);
  }
  const dim3 grid(static_cast<unsigned>(args.rows.num_rows),
                  static_cast<unsigned>(shape.num_kv_heads));
  const auto quads = static_cast<unsigned>(shape.num_heads / shape.num_kv_heads * kDim / 4);
  launch(merge_kernel<kDim>, grid, quads, 0, stream, args);
}

template <int kDim, int kSlots>
void raise_limit() {
  for (const auto kernel : {decode_kernel<kDim, 1, kSlots>, decode_kernel<kDim, 2, kSlots>}) {
    check_device(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                      kSharedBytes<kDim, kSlots>),
                 "decode attention's shared memory");
  }
}

template <int kDim>
void raise_limits() {
  raise_limit<kDim, kManySlots>();
  raise_limit<kDim, kFewSlots>();
}

}  // namespace

void prepare_prefill_attention();  // attention_prefill.cu

void prepare_attention() {
  raise_limits<16>();
  raise_limits<32>();
  raise_limits<64>();
  raise_limits<128>();
  prepare_whole_rows();
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
  if (rows.way == DecodeWay::kWholeRows) return decode_whole_rows(all, blocks, stream);
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
