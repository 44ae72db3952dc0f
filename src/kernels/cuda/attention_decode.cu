// SPDX-License-Identifier: Apache-2.0
// Decode attention: a thread block takes one chunk of one row for one KV head; its query heads are
// the rows of a 16-row tile. Four warps share each tile of 64 keys: 16 keys each for the scores,
// then a quarter of the columns each for the sum over values.
#include "base/check.h"
#include "kernels/cuda/attention_tile.cuh"
#include "kernels/cuda/launch.cuh"

namespace puna::kernels::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kStages = 3;
constexpr int kRows = 16;

template <int kDim>
struct DecodeShared {
  static constexpr int kTileBytes = kTileKeys * kDim * 2;
  static constexpr int kQueries = 0;
  static constexpr int kProbabilities = kQueries + kRows * kDim * 2;
  static constexpr int kMaxima = kProbabilities + kRows * kTileKeys * 2;
  static constexpr int kRing = kMaxima + kWarps * kRows * 4;
  static constexpr int kBytes = kRing + kStages * 2 * kTileBytes;
};

// A thread's part of the chunk: two rows (lane / 4 and 8 more), columns of every fourth group.
template <int kDim>
struct ChunkState {
  static constexpr int kGroups = (kDim / 8 + kWarps - 1) / kWarps;
  float out[kGroups][4] = {};
  float sum[4] = {};
  float maximum[2] = {-INFINITY, -INFINITY};
};

struct DecodeArgs {
  AttentionArgs attention;
  const DecodeItem* items;
  const int32_t* num_items;
  DecodeScratch scratch;
};

__device__ float* partial_of(const DecodeArgs& args, int row, int kv_head, int chunk, int group,
                             int dim) {
  const int64_t index =
      (int64_t{row} * args.attention.shape.num_kv_heads + kv_head) * args.scratch.max_chunks +
      chunk;
  return args.scratch.partials + index * group * (dim + 2);
}

// Scores of this warp's 16 keys, the chunk's new maximum, and probabilities into shared memory.
// Returns by how much what was summed before shrinks.
template <int kDim>
__device__ float2 probabilities(ChunkState<kDim>& state, unsigned char* memory, uint32_t keys,
                                int first_key, int position, float scale) {
  using Shared = DecodeShared<kDim>;
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const uint32_t base_address = shared_address(memory);
  float scores[2][4] = {};
  scores_of_16_keys<kDim>(scores, base_address + Shared::kQueries, 0, keys, 16 * warp, lane);
  float best[2] = {-INFINITY, -INFINITY};
#pragma unroll
  for (int group = 0; group < 2; ++group) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int key = first_key + 16 * warp + 8 * group + 2 * (lane % 4) + i % 2;
      scores[group][i] = masked_score(scores[group][i], scale, key, position);
      best[i / 2] = fmaxf(best[i / 2], scores[group][i]);
    }
  }
  auto* maxima = reinterpret_cast<float*>(memory + Shared::kMaxima);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    best[half] = fmaxf(best[half], __shfl_xor_sync(~0U, best[half], 1));
    best[half] = fmaxf(best[half], __shfl_xor_sync(~0U, best[half], 2));
    if (lane % 4 == 0) maxima[warp * kRows + lane / 4 + 8 * half] = best[half];
  }
  __syncthreads();
  float shrink[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float before = state.maximum[half];
    float now = before;
#pragma unroll
    for (int other = 0; other < kWarps; ++other)
      now = fmaxf(now, maxima[other * kRows + lane / 4 + 8 * half]);
    const float base = softmax_base(now);
    shrink[half] = exp2_approx(__fsub_rn(before, base));
    state.maximum[half] = now;
#pragma unroll
    for (int group = 0; group < 2; ++group) {
      const uint32_t pair = pack_bf16(probability(scores[group][2 * half], base),
                                      probability(scores[group][2 * half + 1], base));
      const uint32_t offset =
          tile_offset<kTileKeys>(lane / 4 + 8 * half, 2 * warp + group) + 4 * (lane % 4);
      *reinterpret_cast<uint32_t*>(memory + Shared::kProbabilities + offset) = pair;
    }
  }
  __syncthreads();
  return {shrink[0], shrink[1]};
}

template <int kDim>
__device__ void add_values(ChunkState<kDim>& state, uint32_t probabilities_address, uint32_t values,
                           float2 shrink) {
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float factor = i < 2 ? shrink.x : shrink.y;
    state.sum[i] = __fmul_rn(state.sum[i], factor);
#pragma unroll
    for (int group = 0; group < ChunkState<kDim>::kGroups; ++group)
      state.out[group][i] = __fmul_rn(state.out[group][i], factor);
  }
#pragma unroll
  for (int step = 0; step < kTileKeys / 16; ++step) {
    uint32_t a[4];
    load_matrices(
        a, probabilities_address + tile_offset<kTileKeys>(lane & 15, 2 * step + (lane >> 4)));
    multiply_add(state.sum, a, kBf16Ones, kBf16Ones);
#pragma unroll
    for (int group = 0; group < ChunkState<kDim>::kGroups; ++group) {
      const int column_group = group * kWarps + warp;
      if (column_group * 8 >= kDim) break;
      uint32_t b[2];
      load_two_transposed(b, values + tile_offset<kDim>(16 * step + (lane & 15), column_group));
      multiply_add(state.out[group], a, b[0], b[1]);
    }
  }
}

template <int kDim>
__device__ void write_out(const DecodeArgs& args, const DecodeItem& item, int kv_head, int group,
                          const ChunkState<kDim>& state, bool whole) {
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  float* partial = partial_of(args, item.row, kv_head, item.chunk, group, kDim);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int head = lane / 4 + 8 * half;
    if (head >= group) continue;
    BFloat16* out =
        args.attention.out +
        (int64_t{item.row} * args.attention.shape.num_heads + kv_head * group + head) * kDim;
#pragma unroll
    for (int i = 0; i < ChunkState<kDim>::kGroups; ++i) {
      const int column = (i * kWarps + warp) * 8 + 2 * (lane % 4);
      if (column >= kDim) break;
      const float2 value = {state.out[i][2 * half], state.out[i][2 * half + 1]};
      if (whole) {
        // Merged into nothing, as prefill does.
        float maximum = -INFINITY;
        const MergeFactors factors = merge_factors(maximum, state.maximum[half]);
        const float sum = merged(0.0F, state.sum[2 * half], factors);
        *reinterpret_cast<uint32_t*>(out + column) =
            pack_bf16(normalised(merged(0.0F, value.x, factors), sum),
                      normalised(merged(0.0F, value.y, factors), sum));
      } else {
        *reinterpret_cast<float2*>(partial + head * kDim + column) = value;
      }
    }
    if (!whole && warp == 0 && lane % 4 == 0) {
      partial[group * kDim + head] = state.maximum[half];
      partial[group * kDim + group + head] = state.sum[2 * half];
    }
  }
}

template <int kDim>
__device__ void merge_chunks(const DecodeArgs& args, const DecodeItem& item, int kv_head, int group,
                             int chunks) {
  for (int i = static_cast<int>(threadIdx.x); i < group * kDim; i += kThreads) {
    const int head = i / kDim;
    float maximum = -INFINITY;
    float sum = 0.0F;
    float out = 0.0F;
    for (int chunk = 0; chunk < chunks; ++chunk) {
      const float* partial = partial_of(args, item.row, kv_head, chunk, group, kDim);
      const MergeFactors factors = merge_factors(maximum, __ldcg(partial + group * kDim + head));
      sum = merged(sum, __ldcg(partial + group * kDim + group + head), factors);
      out = merged(out, __ldcg(partial + i), factors);
    }
    const auto value = __float2bfloat16_rn(normalised(out, sum));
    BFloat16* row = args.attention.out +
                    (int64_t{item.row} * args.attention.shape.num_heads + kv_head * group) * kDim;
    reinterpret_cast<__nv_bfloat16*>(row)[i] = value;
  }
}

template <int kDim>
__device__ void compute_chunk(const DecodeArgs& args, const DecodeItem& item, int kv_head,
                              int group, ChunkState<kDim>& state, unsigned char* memory) {
  using Shared = DecodeShared<kDim>;
  constexpr int kUnits = kDim / 8;
  const AttentionArgs& attention = args.attention;
  const uint32_t base = shared_address(memory);
  const int32_t* table = attention.block_tables + item.table_offset;
  const int first_key = item.chunk * kChunkKeys;
  const int end = min(item.position + 1, first_key + kChunkKeys);
  const int tiles = (end - first_key + kTileKeys - 1) / kTileKeys;
  const BFloat16* queries =
      attention.queries + (int64_t{item.row} * attention.shape.num_heads + kv_head * group) * kDim;
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kUnits; i += kThreads) {
    const int head = i / kUnits;
    copy_async(base + Shared::kQueries + tile_offset<kDim>(head, i % kUnits),
               queries + (head < group ? head : 0) * kDim + (i % kUnits) * 8, head < group);
  }
  const auto stage_keys = [&](int tile) {
    return base + Shared::kRing + (tile % kStages) * 2 * Shared::kTileBytes;
  };
  const auto copy = [&](int tile) {
    if (tile < tiles) {
      copy_tile<kDim, kThreads>(stage_keys(tile), stage_keys(tile) + Shared::kTileBytes, attention,
                                kv_head, table, first_key + tile * kTileKeys, end);
    }
    commit_copies();
  };
  copy(0);
  copy(1);
  for (int tile = 0; tile < tiles; ++tile) {
    wait_for_copies<1>();
    __syncthreads();
    copy(tile + 2);
    const float2 shrink =
        probabilities<kDim>(state, memory, stage_keys(tile), first_key + tile * kTileKeys,
                            item.position, __fmul_rn(attention.scale, kLog2E));
    add_values<kDim>(state, base + Shared::kProbabilities, stage_keys(tile) + Shared::kTileBytes,
                     shrink);
  }
}

template <int kDim>
__global__ void __launch_bounds__(kThreads) decode_kernel(DecodeArgs args) {
  extern __shared__ __align__(128) unsigned char memory[];
  __shared__ int arrived;
  wait_for_previous_kernel();
  const AttentionShape& shape = args.attention.shape;
  const int group = shape.num_heads / shape.num_kv_heads;
  const int work = *args.num_items * shape.num_kv_heads;
  for (int index = blockIdx.x; index < work; index += gridDim.x) {
    const DecodeItem item = args.items[index / shape.num_kv_heads];
    const int kv_head = index % shape.num_kv_heads;
    const int chunks = item.position / kChunkKeys + 1;
    ChunkState<kDim> state;
    compute_chunk<kDim>(args, item, kv_head, group, state, memory);
    write_out<kDim>(args, item, kv_head, group, state, chunks == 1);
    if (chunks > 1) {
      __threadfence();
      __syncthreads();
      int32_t* counter = args.scratch.counters + item.row * shape.num_kv_heads + kv_head;
      if (threadIdx.x == 0) arrived = atomicAdd(counter, 1);
      __syncthreads();
      if (arrived == chunks - 1) {
        __threadfence();
        merge_chunks<kDim>(args, item, kv_head, group, chunks);
        if (threadIdx.x == 0) *counter = 0;
      }
    }
    __syncthreads();
  }
}

template <int kDim>
void launch_decode(const DecodeArgs& args, int32_t blocks, Stream stream) {
  launch(decode_kernel<kDim>, dim3(static_cast<unsigned>(blocks)), kThreads,
         DecodeShared<kDim>::kBytes, stream, args);
}

template <int kDim>
void raise_limit() {
  check_device(
      cudaFuncSetAttribute(decode_kernel<kDim>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                           DecodeShared<kDim>::kBytes),
      "decode attention's shared memory");
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
  return int64_t{rows} * shape.num_heads * max_chunks * (shape.head_dim + 2);
}

void attention_decode(const AttentionArgs& args, const DecodeItem* items, const int32_t* num_items,
                      const DecodeScratch& scratch, int32_t blocks, Stream stream) {
  CHECK(attention_supports(args.shape));
  const DecodeArgs all = {args, items, num_items, scratch};
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
