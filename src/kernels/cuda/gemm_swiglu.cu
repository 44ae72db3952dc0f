// SPDX-License-Identifier: Apache-2.0
// A block has 128 rows and 128 outputs, so 128 rows of the gate's weight and as many of up's: one
// warp keeps a ring of x and weights full, two warpgroups of 64 rows multiply. Two blocks of a
// cluster have other rows of x and the same weights, of which each copies half for both. A thread
// ends up with a gate and its up, so that SwiGLU happens in its registers.
// Source of the schedule: CUTLASS's warp-specialised persistent kernels for Hopper.
#include <cuda.h>

#include <algorithm>

#include "base/check.h"
#include "kernels/cuda/elementwise.cuh"
#include "kernels/cuda/gemm_swiglu.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/tensor_copy.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace puna::kernels::cuda {
namespace {

constexpr int kGroupThreads = 128;  // of a warpgroup
constexpr int kGroups = 2;
constexpr int kGroupRows = 64;
constexpr int kThreads = kGroupThreads * (1 + kGroups);  // the first warpgroup copies
constexpr int kRows = kGroups * kGroupRows;              // of x, of a block
constexpr int kOutputs = 128;
constexpr int kDepth = kBoxColumns;  // columns of x and of the weights in a stage
constexpr int kStages = 4;
constexpr int kClusterBlocks = 2;
constexpr int kBand = 8;  // clusters of rows that share weights in L2, one after the other

constexpr int kLineBytes = kDepth * 2;
constexpr int kInputBytes = kRows * kLineBytes;
constexpr int kWeightBytes = kOutputs * kLineBytes;  // of the gate, or of up
constexpr int kStageBytes = kInputBytes + 2 * kWeightBytes;
constexpr int kResults = kStages * kStageBytes;  // where the warpgroups' results go
constexpr int kGroupResultBytes = kGroupRows * kOutputs * 2;
constexpr int kBarriers = kResults + kGroups * kGroupResultBytes;
constexpr int kAlignment = 1024;
constexpr int kSharedBytes = kBarriers + 2 * kStages * 8 + kAlignment;

struct Maps {
  CUtensorMap x;       // boxes of kRows lines
  CUtensorMap weight;  // of kOutputs lines
  CUtensorMap out;     // of kGroupRows lines
};
struct Sizes {
  int inner;
  int steps;  // stages of K
  int row_clusters;
  int column_tiles;
};

struct Shared {
  uint32_t start;
  __device__ uint32_t stage(int index) const { return start + index * kStageBytes; }
  __device__ uint32_t full(int index) const { return start + kBarriers + index * 8; }
  __device__ uint32_t empty(int index) const { return full(kStages + index); }
  __device__ uint32_t results(int group) const {
    return start + kResults + group * kGroupResultBytes;
  }
};

// Where in the ring a walk is.
struct Place {
  int stage = 0;
  uint32_t parity = 0;
  __device__ void next() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

struct Tile {
  int row;     // of this block the first
  int output;  // of gate and of up
};

// Bands of kBand clusters of rows; in a band the outputs go by, so that few weights and few rows
// are read at a time.
__device__ inline Tile tile_of(const Sizes& sizes, int index, int rank) {
  const int band = index / (kBand * sizes.column_tiles);
  const int in_band = index - band * kBand * sizes.column_tiles;
  const int height = min(kBand, sizes.row_clusters - band * kBand);
  const int cluster = band * kBand + in_band % height;
  return {(cluster * kClusterBlocks + rank) * kRows, in_band / height * kOutputs};
}

__device__ inline void copy_tiles(const Maps& maps, const Sizes& sizes, const Shared& shared,
                                  int first, int stride, int tiles, int rank) {
  constexpr uint16_t kAllBlocks = (1 << kClusterBlocks) - 1;
  Place place;
  for (int index = first; index < tiles; index += stride) {
    const Tile tile = tile_of(sizes, index, rank);
    const int weight_row = tile.output + rank * sizes.inner;  // one block brings gates, one ups
    for (int step = 0; step < sizes.steps; ++step) {
      wait_for_bytes(shared.empty(place.stage), place.parity ^ 1);
      const uint32_t full = shared.full(place.stage);
      const uint32_t to = shared.stage(place.stage);
      expect_bytes(full, kStageBytes);
      copy_box(to, maps.x, step * kDepth, tile.row, full);
      copy_box_to_blocks(to + kInputBytes + rank * kWeightBytes, maps.weight, step * kDepth,
                         weight_row, full, kAllBlocks);
      place.next();
    }
  }
}

__device__ inline void store_matrices(uint32_t to, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
#if PUNA_WGMMA
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(to), "r"(a),
               "r"(b), "r"(c), "r"(d)
               : "memory");
#endif
}

// The two numbers of a gate and an up, rounded to f16 as a product of its own would be.
__device__ inline uint32_t activated(const float* gate, const float* up) {
  const float2 g = to_floats(to_half_pair(gate[0], gate[1]));
  const float2 u = to_floats(to_half_pair(up[0], up[1]));
  return to_limited_half_pair(silu_product(g.x, u.x), silu_product(g.y, u.y));
}

// One warpgroup's rows of all tiles.
__device__ inline void multiply_tiles(const Maps& maps, const Sizes& sizes, const Shared& shared,
                                      int first, int stride, int tiles, int rank, int group) {
  const int thread = static_cast<int>(threadIdx.x) % kGroupThreads;
  const int lane = thread % 32;
  const int warp_row = thread / 32 * 16;
  const SwizzledTile ring(shared.start, 1);
  float sums[32][4];
  Place place;
  const auto release = [&](int stage) {
    if (thread < kClusterBlocks) arrive_at_block(shared.empty(stage), thread);
  };
  for (int index = first; index < tiles; index += stride) {
    const Tile tile = tile_of(sizes, index, rank);
    int before = -1;
    for (int step = 0; step < sizes.steps; ++step) {
      wait_for_bytes(shared.full(place.stage), place.parity);
      const uint32_t x = place.stage * kStageBytes + group * kGroupRows * kLineBytes;
      const uint32_t weights = place.stage * kStageBytes + kInputBytes;
      pin_results(sums);
      begin_products();
#pragma unroll
      for (int k = 0; k < kDepth / 16; ++k)
        multiply_lines(sums, ring.at(x + k * 32), ring.at(weights + k * 32), step > 0 || k > 0);
      commit_products();
      if (before >= 0) {
        wait_for_products<1>();
        release(before);
      }
      before = place.stage;
      place.next();
    }
    wait_for_products<0>();
    pin_results(sums);
    release(before);

    const uint32_t results = shared.results(group);
    if (thread == 0) wait_for_stores();
    sync_threads(1 + group, kGroupThreads);
    const int row = warp_row + lane % 16;
#pragma unroll
    for (int pair = 0; pair < kOutputs / 16; ++pair) {
      const float(&gate)[4] = sums[2 * pair];
      const float(&next_gate)[4] = sums[2 * pair + 1];
      const float(&up)[4] = sums[16 + 2 * pair];
      const float(&next_up)[4] = sums[16 + 2 * pair + 1];
      const int unit = 2 * (pair % 4) + lane / 16;
      store_matrices(
          results + pair / 4 * (kGroupResultBytes / 2) + row * kLineBytes + (unit ^ row % 8) * 16,
          activated(gate, up), activated(gate + 2, up + 2), activated(next_gate, next_up),
          activated(next_gate + 2, next_up + 2));
    }
    fence_before_copies();
    sync_threads(1 + group, kGroupThreads);
    if (thread == 0) {
      const int first_row = tile.row + group * kGroupRows;
      store_box(maps.out, results, tile.output, first_row);
      store_box(maps.out, results + kGroupResultBytes / 2, tile.output + kBoxColumns, first_row);
      commit_stores();
    }
  }
  if (thread == 0) finish_stores();
}

__global__ void __cluster_dims__(kClusterBlocks, 1, 1) __launch_bounds__(kThreads, 1)
    swiglu_gemm_kernel(const __grid_constant__ Maps maps, Sizes sizes) {
  extern __shared__ unsigned char memory[];
  const Shared shared = {(shared_address(memory) + kAlignment - 1) / kAlignment * kAlignment};
  const int rank = static_cast<int>(block_in_cluster());
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < kStages; ++stage) {
      init_copy_barrier(shared.full(stage));
      init_copy_barrier(shared.empty(stage), kGroups * kClusterBlocks);
    }
  }
  sync_cluster();
  wait_for_previous_kernel();
  const int first = static_cast<int>(blockIdx.x) / kClusterBlocks;
  const int stride = static_cast<int>(gridDim.x) / kClusterBlocks;
  const int tiles = sizes.row_clusters * sizes.column_tiles;
  if (threadIdx.x < kGroupThreads) {
    leave_registers<24>();
    if (threadIdx.x == 0) copy_tiles(maps, sizes, shared, first, stride, tiles, rank);
  } else {
    take_registers<240>();
    const int group = __shfl_sync(~0U, static_cast<int>(threadIdx.x) / kGroupThreads, 0) - 1;
    multiply_tiles(maps, sizes, shared, first, stride, tiles, rank, group);
  }
  sync_cluster();  // copies of the other block come here until it has all
}

// 0 where the kernel can't run.
int multiprocessors() {
  static const int result = [] {
    const int count = multiprocessors_with_code(reinterpret_cast<const void*>(swiglu_gemm_kernel));
    if (count > 0) {
      check_device(cudaFuncSetAttribute(swiglu_gemm_kernel,
                                        cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes),
                   "a kernel's shared memory");
    }
    return count;
  }();
  return result;
}

}  // namespace

bool swiglu_gemm_supports(int64_t inner, int64_t columns) {
  return multiprocessors() >= kClusterBlocks && inner % kOutputs == 0 && columns % kDepth == 0;
}

void swiglu_gemm(const SwigluGemmArgs& args, Stream stream) {
  CHECK(swiglu_gemm_supports(args.inner, args.columns) && args.rows <= args.room);
  const Maps maps = {box_map(args.x, args.room, args.columns, kRows),
                     box_map(args.weight, 2 * args.inner, args.columns, kOutputs),
                     box_map(args.out, args.room, args.inner, kGroupRows)};
  constexpr int kClusterRows = kClusterBlocks * kRows;
  const Sizes sizes = {static_cast<int>(args.inner), static_cast<int>(args.columns / kDepth),
                       (args.rows + kClusterRows - 1) / kClusterRows,
                       static_cast<int>(args.inner / kOutputs)};
  const int clusters =
      std::min(multiprocessors() / kClusterBlocks, sizes.row_clusters * sizes.column_tiles);
  launch(swiglu_gemm_kernel, dim3(static_cast<unsigned>(clusters * kClusterBlocks)), kThreads,
         kSharedBytes, stream, maps, sizes);
}

}  // namespace puna::kernels::cuda
