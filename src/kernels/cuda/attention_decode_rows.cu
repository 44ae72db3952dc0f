// SPDX-License-Identifier: Apache-2.0
// Decode attention with whole rows: a thread block takes all chunks of a row for one KV head, and
// its warps merge them in turn, in shared memory; a warp that waits for its turn has its next chunk
// on the way. What is merged never goes through memory.
#include "kernels/cuda/attention_decode.cuh"

namespace puna::kernels::cuda {
namespace {

constexpr int kSlots = 3;

// What is merged so far of the row that a thread block is at, as a warp's threads hold it.
template <int kDim, int kHalves>
struct Merged {
  float2 out[kHalves][kDim / 8][kWarpThreads];
  float maximum[kHalves][kWarpThreads];
  float sum[kHalves][kWarpThreads];
  uint64_t turns[kDecodeWarps];  // a barrier for each warp, whose phases are its chunks
};
// A ring for each warp, their barriers, then what they merge into.
template <int kDim, int kHalves>
constexpr int shared_bytes(int warps) {
  return warps * (kRingBytes<kDim, kSlots> +
                  kBarrierBytes<kSlots>)+static_cast<int>(sizeof(Merged<kDim, kHalves>));
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

// The chunks of a warp, one after the other. Rows go round the thread blocks, to and fro; the
// chunks that a block has got so go round its warps.
class EveryChunk {
 public:
  __device__ explicit EveryChunk(const DecodeArgs& args)
      : args_(args),
        end_(*args.rows.num_items * args.attention.shape.num_kv_heads),
        warps_(static_cast<int>(blockDim.x) / kWarpThreads),
        number_(static_cast<int>(threadIdx.x) / kWarpThreads - warps_) {}
  // The last chunk's, among the block's.
  __device__ int number() const { return number_; }

  __device__ bool take(Work& work) {
    number_ += warps_;
    while (number_ >= before_ + chunks_) {
      const auto blocks = static_cast<int>(gridDim.x);
      const auto block = static_cast<int>(blockIdx.x);
      const int index = round_ * blocks + (round_ % 2 == 0 ? block : blocks - 1 - block);
      if (index >= end_) return false;
      ++round_;
      row_ = work_at(args_, index);
      before_ += chunks_;
      chunks_ = row_.item.position / kChunkKeys + 1;
    }
    work = row_;
    work.item.chunk = number_ - before_;
    count_tiles(work);
    return true;
  }

 private:
  const DecodeArgs& args_;
  const int end_;
  const int warps_;
  int number_;
  Work row_ = {};
  int before_ = 0;  // the block's chunks before those of row_
  int chunks_ = 0;  // of row_
  int round_ = 0;
};

// The chunk into those before it, when they have been: by the block's warps in the order of their
// chunks. The last one of a row writes it out.
template <int kDim, int kHalves>
__device__ inline void merge_in_turn(const DecodeArgs& args, const Work& work, int group,
                                     const RowState<kDim>& chunk, int number,
                                     Merged<kDim, kHalves>& merged) {
  const int lane = lane_of_thread();
  const int warps = static_cast<int>(blockDim.x) / kWarpThreads;
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  wait_for_turn(&merged.turns[warp], number / warps);
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

// kHalves 1: at most eight query heads for a KV head.
template <int kDim, int kHalves>
__global__ void __launch_bounds__(kDecodeWarps* kWarpThreads) rows_kernel(DecodeArgs args) {
  extern __shared__ __align__(128) unsigned char memory[];
  let_next_kernel_start();
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int warps = static_cast<int>(blockDim.x) / kWarpThreads;
  unsigned char* const after_rings = memory + warps * kRingBytes<kDim, kSlots>;
  const uint32_t barriers = shared_address(after_rings + warp * kBarrierBytes<kSlots>);
  auto& merged =
      *reinterpret_cast<Merged<kDim, kHalves>*>(after_rings + warps * kBarrierBytes<kSlots>);
  const int group = args.attention.shape.num_heads / args.attention.shape.num_kv_heads;
  const bool unrotated = args.unrotated.qkv != nullptr;
  if (lane_of_thread() < kSlots) init_copy_barrier(barriers + lane_of_thread() * 8);
  if (lane_of_thread() == 0) init_turn(&merged.turns[warp]);
  __syncthreads();
  if (warp == 0) give_turn(&merged.turns[0]);
  // Without the rows' own keys, all that is copied was there before this step.
  if (!unrotated) wait_for_kernels_before();
  EveryChunk chunks(args);
  ChunkReader<kDim, kHalves, kSlots, EveryChunk> reader(
      args, chunks, memory + warp * kRingBytes<kDim, kSlots>, barriers);
  if (unrotated) wait_for_kernels_before();
  for (Work work; chunks.take(work);) {
    RowState<kDim> chunk;
    reader.attend(chunk, work, group);
    merge_in_turn<kDim, kHalves>(args, work, group, chunk, chunks.number(), merged);
  }
}

// As many as the GPU has room for in a block's shared memory; eight on Hopper.
template <int kDim, int kHalves>
int warps_of_block() {
  static const int warps = [] {
    int device = 0;
    int most = 0;
    check_device(cudaGetDevice(&device), "asking for the device");
    check_device(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
                 "asking for shared memory");
    int fit = kDecodeWarps;
    while (shared_bytes<kDim, kHalves>(fit) > most) --fit;
    return fit;
  }();
  return warps;
}

template <int kDim, int kHalves>
void launch_rows(const DecodeArgs& args, int32_t blocks, Stream stream) {
  const int warps = warps_of_block<kDim, kHalves>();
  launch(rows_kernel<kDim, kHalves>, dim3(static_cast<unsigned>(blocks)),
         static_cast<unsigned>(warps * kWarpThreads), shared_bytes<kDim, kHalves>(warps), stream,
         args);
}

template <int kDim>
void launch_rows(const DecodeArgs& args, int32_t blocks, Stream stream) {
  if (args.attention.shape.num_heads / args.attention.shape.num_kv_heads <= 8) {
    launch_rows<kDim, 1>(args, blocks, stream);
  } else {
    launch_rows<kDim, 2>(args, blocks, stream);
  }
}

template <int kDim, int kHalves>
void raise_limit() {
  check_device(
      cudaFuncSetAttribute(rows_kernel<kDim, kHalves>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                           shared_bytes<kDim, kHalves>(warps_of_block<kDim, kHalves>())),
      "decode attention's shared memory");
}

template <int kDim>
void raise_limits() {
  raise_limit<kDim, 1>();
  raise_limit<kDim, 2>();
}

}  // namespace

void prepare_whole_rows() {
  raise_limits<16>();
  raise_limits<32>();
  raise_limits<64>();
  raise_limits<128>();
}

void decode_whole_rows(const DecodeArgs& args, int32_t blocks, Stream stream) {
  switch (args.attention.shape.head_dim) {
    case 16:
      return launch_rows<16>(args, blocks, stream);
    case 32:
      return launch_rows<32>(args, blocks, stream);
    case 64:
      return launch_rows<64>(args, blocks, stream);
    default:
      return launch_rows<128>(args, blocks, stream);
  }
}

}  // namespace puna::kernels::cuda
