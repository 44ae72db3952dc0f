// SPDX-License-Identifier: Apache-2.0
// A warp takes 16 outputs at a time (a unit) and walks their columns in stages of 128, which a ring
// in shared memory keeps copies of in flight, over the end of a unit too. Warps share nothing.
#include "base/check.h"
#include "kernels/cuda/attention_tile.cuh"
#include "kernels/cuda/elementwise.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/skinny_gemm.h"

namespace puna::kernels::cuda {
namespace {

constexpr int kWarpThreads = 32;
constexpr int kUnitOutputs = 16;
constexpr int kStageColumns = 128;
constexpr int kStageBytes = kUnitOutputs * kStageColumns * 2;
constexpr int kStages = 6;
constexpr int kSteps = kStageColumns / 16;  // products on tensor cores in a stage
constexpr int kWarpsPerMultiprocessor = 4;

// Stages of this warp, in order. A gated unit has two stages for the same columns: gate, then up.
template <bool kGated>
struct Walk {
  __device__ Walk(const SkinnyArgs& args)
      : tiles(args.outputs / kUnitOutputs / (kGated ? 2 : 1)),
        piece_columns(args.columns / args.pieces),
        left(
            (tiles * args.pieces - static_cast<int>(blockIdx.x) + static_cast<int>(gridDim.x) - 1) /
            static_cast<int>(gridDim.x)) {
    start_unit(static_cast<int>(blockIdx.x));
  }
  __device__ bool done() const { return left <= 0; }
  __device__ int first_output() const {
    return tile * kUnitOutputs + (kGated && up ? tiles * kUnitOutputs : 0);
  }
  // Columns from the start of a row of the weight or of x.
  __device__ int first_column() const { return piece * piece_columns + column; }
  __device__ bool ends_unit() const {
    return column + kStageColumns == piece_columns && (!kGated || up);
  }
  __device__ void next() {
    if (kGated) {
      up = !up;
      if (up) return;
    }
    column += kStageColumns;
    if (column < piece_columns) return;
    --left;
    start_unit(unit + static_cast<int>(gridDim.x));
  }
  __device__ void start_unit(int at) {
    unit = at;
    piece = unit / tiles;
    tile = unit % tiles;
    column = 0;
  }

  int tiles;
  int piece_columns;
  int left;  // units
  int unit = 0;
  int piece = 0;
  int tile = 0;
  int column = 0;
  bool up = false;
};

template <bool kGated>
__device__ inline void copy_stage(uint32_t to, const SkinnyArgs& args, const Walk<kGated>& walk) {
  constexpr int kUnits = kStageColumns / 8;  // of 16 bytes in a row
  const int lane = threadIdx.x;
  const BFloat16* from = args.weight + int64_t{walk.first_output() + lane / kUnits} * args.columns +
                         walk.first_column() + lane % kUnits * 8;
#pragma unroll
  for (int i = 0; i < kUnitOutputs * kUnits / kWarpThreads; ++i) {
    const int row = i * (kWarpThreads / kUnits) + lane / kUnits;
    copy_async(to + tile_offset<kStageColumns>(row, lane % kUnits),
               from + int64_t{i} * (kWarpThreads / kUnits) * args.columns, true);
  }
}

// The right operands of a stage, for eight rows of x a group.
template <int kGroups>
struct StageX {
  uint32_t values[kGroups][kSteps][2];

  template <bool kGated>
  __device__ void load(const SkinnyArgs& args, const Walk<kGated>& walk) {
    const int lane = threadIdx.x;
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      const int row = group * 8 + lane / 4;
      const bool there = row < args.rows;
      const auto* from =
          reinterpret_cast<const uint32_t*>(args.x + int64_t{there ? row : 0} * args.columns +
                                            walk.first_column()) +
          lane % 4;
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        values[group][step][0] = there ? from[step * 8] : 0;
        values[group][step][1] = there ? from[step * 8 + 4] : 0;
      }
    }
  }
};

__device__ inline float rounded_to_bf16(float value) {
  return __bfloat162float(__float2bfloat16_rn(value));
}

// A thread has outputs lane / 4 and 8 more, of rows 2 * (lane % 4) and the next.
template <int kGroups, bool kFloat>
__device__ inline void write_unit(const SkinnyArgs& args, const Walk<false>& walk,
                                  const float (&sums)[1][kGroups][4]) {
  const int lane = threadIdx.x;
#pragma unroll
  for (int group = 0; group < kGroups; ++group) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = group * 8 + 2 * (lane % 4) + i % 2;
      if (row >= args.rows) continue;
      const int64_t at = walk.piece * args.piece_stride + int64_t{row} * args.outputs +
                         walk.tile * kUnitOutputs + lane / 4 + 8 * (i / 2);
      if constexpr (kFloat) {
        static_cast<float*>(args.out)[at] = sums[0][group][i];
      } else {
        static_cast<__nv_bfloat16*>(args.out)[at] = __float2bfloat16_rn(sums[0][group][i]);
      }
    }
  }
}

template <int kGroups, bool kFloat>
__device__ inline void write_unit(const SkinnyArgs& args, const Walk<true>& walk,
                                  const float (&sums)[2][kGroups][4]) {
  const int lane = threadIdx.x;
#pragma unroll
  for (int group = 0; group < kGroups; ++group) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = group * 8 + 2 * (lane % 4) + i % 2;
      if (row >= args.rows) continue;
      const int64_t at =
          int64_t{row} * (args.outputs / 2) + walk.tile * kUnitOutputs + lane / 4 + 8 * (i / 2);
      static_cast<__nv_bfloat16*>(args.out)[at] = __float2bfloat16_rn(
          silu_product(rounded_to_bf16(sums[0][group][i]), rounded_to_bf16(sums[1][group][i])));
    }
  }
}

template <int kGroups, bool kGated, bool kFloat>
__global__ void __launch_bounds__(kWarpThreads) skinny_kernel(SkinnyArgs args) {
  extern __shared__ __align__(128) unsigned char memory[];
  let_next_kernel_start();
  const int lane = threadIdx.x;
  const uint32_t ring = shared_address(memory);
  Walk<kGated> ahead(args);
  Walk<kGated> walk(args);
  int ahead_slot = 0;
  const auto copy_next = [&] {
    if (!ahead.done()) {
      copy_stage<kGated>(ring + ahead_slot * kStageBytes, args, ahead);
      ahead.next();
    }
    commit_copies();
    ahead_slot = ahead_slot == kStages - 1 ? 0 : ahead_slot + 1;
  };
#pragma unroll
  for (int i = 0; i < kStages; ++i) copy_next();
  wait_for_kernels_before();
  constexpr int kParts = kGated ? 2 : 1;
  float sums[kParts][kGroups][4] = {};
  StageX<kGroups> x;
  StageX<kGroups> next_x;
  if (!walk.done()) x.template load<kGated>(args, walk);
  int slot = 0;
  while (!walk.done()) {
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      const Walk<kGated> here = walk;
      walk.next();
      if (part == kParts - 1 && !walk.done()) next_x.template load<kGated>(args, walk);
      wait_for_copies<kStages - 1>();
      __syncwarp();
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        uint32_t a[4];
        load_matrices(a, ring + slot * kStageBytes +
                             tile_offset<kStageColumns>(lane & 15, 2 * step + (lane >> 4)));
#pragma unroll
        for (int group = 0; group < kGroups; ++group) {
          multiply_add(sums[part][group], a, x.values[group][step][0], x.values[group][step][1]);
        }
      }
      __syncwarp();
      copy_next();
      slot = slot == kStages - 1 ? 0 : slot + 1;
      if (here.ends_unit()) {
        write_unit<kGroups, kFloat>(args, here, sums);
#pragma unroll
        for (int p = 0; p < kParts; ++p) {
#pragma unroll
          for (int group = 0; group < kGroups; ++group) {
#pragma unroll
            for (int i = 0; i < 4; ++i) sums[p][group][i] = 0.0F;
          }
        }
      }
    }
    x = next_x;
  }
}

int multiprocessors() {
  static const int count = [] {
    int device = 0;
    int value = 0;
    check_device(cudaGetDevice(&device), "the GPU");
    check_device(cudaDeviceGetAttribute(&value, cudaDevAttrMultiProcessorCount, device), "the GPU");
    return value;
  }();
  return count;
}

template <bool kGated, bool kFloat>
void launch_skinny(const SkinnyArgs& args, Stream stream) {
  const int units = args.outputs / kUnitOutputs / (kGated ? 2 : 1) * args.pieces;
  const int warps = units < kWarpsPerMultiprocessor * multiprocessors()
                        ? units
                        : kWarpsPerMultiprocessor * multiprocessors();
  const dim3 grid(static_cast<unsigned>(warps));
  constexpr size_t kBytes = size_t{kStages} * kStageBytes;
  if (args.rows <= 8) {
    launch(skinny_kernel<1, kGated, kFloat>, grid, kWarpThreads, kBytes, stream, args);
  } else {
    launch(skinny_kernel<2, kGated, kFloat>, grid, kWarpThreads, kBytes, stream, args);
  }
}

}  // namespace

bool skinny_supports(int64_t outputs, int64_t columns, int32_t pieces) {
  return outputs % kUnitOutputs == 0 && columns % (int64_t{pieces} * kStageColumns) == 0 &&
         outputs <= INT32_MAX && columns <= INT32_MAX;
}

void skinny_gemm(const SkinnyArgs& args, Stream stream) {
  CHECK(skinny_supports(args.outputs, args.columns, args.pieces) && args.rows <= kSkinnyRows);
  if (args.f32_out) {
    launch_skinny<false, true>(args, stream);
  } else {
    launch_skinny<false, false>(args, stream);
  }
}

void skinny_gated_gemm(const SkinnyArgs& args, Stream stream) {
  CHECK(args.outputs % (2 * kUnitOutputs) == 0 && args.pieces == 1 && args.rows <= kSkinnyRows);
  launch_skinny<true, false>(args, stream);
}

}  // namespace puna::kernels::cuda
