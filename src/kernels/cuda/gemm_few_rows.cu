// SPDX-License-Identifier: Apache-2.0
// Weights are the left operand, sixteen outputs for a warp's tile, and x's rows the right one. A
// thread block takes the outputs of a tile for all columns: one warp keeps a ring of boxes full,
// the others multiply, each for outputs of its own. Outputs are cut so that all multiprocessors
// have about as many.
#include <algorithm>
#include <array>
#include <iterator>

#include "base/check.h"
#include "base/checked_math.h"
#include "kernels/cuda/elementwise.cuh"
#include "kernels/cuda/gemm_few_rows.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/tensor_copy.cuh"

namespace puna::kernels::cuda {
namespace {

constexpr int kWarpThreads = 32;
constexpr int kMostWarps = 8;      // that multiply
constexpr int kGroupOutputs = 16;  // of a warp's tile
constexpr int kGroupRows = 8;
constexpr int kLineBytes = kBoxColumns * 2;
constexpr int kGroupBytes = kGroupOutputs * kLineBytes;
constexpr int kMostBoxes = 8;  // of a stage, one beside the other
constexpr int kMostStageBytes = 40 << 10;
constexpr int kMostStages = 16;
constexpr int kRingBytes = 200 << 10;  // kernels before and after have room beside it
constexpr int kAlignment = 1024;
constexpr int kSharedBytes = kRingBytes + 2 * kMostStages * 8 + kAlignment;

struct Maps {
  CUtensorMap x;
  CUtensorMap weight;
};
struct Sizes {
  int rows;
  int outputs;         // of a row of results
  int warps;           // that multiply
  int tile_outputs;    // lines of the weight's box
  int tiles_of_piece;  // of outputs
  int tiles;
  int steps;  // stages of a piece
  int boxes;  // of a stage
  int stages;
  int weight_bytes;  // of a box of columns: one box of lines, or two
  int stage_bytes;
  int64_t piece_stride;
};

struct Shared {
  uint32_t start;
  int stage_bytes;
  __device__ uint32_t stage(int index) const { return start + index * stage_bytes; }
  __device__ uint32_t full(int index) const { return start + kRingBytes + index * 8; }
  __device__ uint32_t empty(int index) const { return full(kMostStages + index); }
};

// Where in the ring a walk is.
struct Place {
  int stage = 0;
  uint32_t parity = 0;
  __device__ void next(int stages) {
    if (++stage == stages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

// The stages of this thread block, one after the other. One thread copies for all: a division for
// each stage would take longer than the copy.
class Walk {
 public:
  __device__ explicit Walk(const Sizes& sizes)
      : sizes_(sizes), tile_(static_cast<int>(blockIdx.x)) {
    enter_tile();
  }
  __device__ bool more() const { return tile_ < sizes_.tiles; }
  __device__ void next() {
    column_ += sizes_.boxes * kBoxColumns;
    if (++step_ < sizes_.steps) return;
    tile_ += static_cast<int>(gridDim.x);
    enter_tile();
  }
  __device__ int first_output() const { return first_output_; }
  __device__ int piece() const { return piece_; }
  __device__ int first_column() const { return column_; }
  __device__ bool at_end_of_tile() const { return step_ == sizes_.steps - 1; }

 private:
  __device__ void enter_tile() {
    step_ = 0;
    piece_ = tile_ / sizes_.tiles_of_piece;
    first_output_ = (tile_ - piece_ * sizes_.tiles_of_piece) * sizes_.tile_outputs;
    column_ = piece_ * sizes_.steps * sizes_.boxes * kBoxColumns;
  }

  const Sizes& sizes_;
  int tile_;
  int step_ = 0;
  int piece_ = 0;
  int first_output_ = 0;
  int column_ = 0;
};

template <bool kGated>
__device__ inline void copy_weights(const Maps& maps, const Sizes& sizes, const Walk& walk,
                                    uint32_t to, uint32_t full, uint64_t policy) {
#pragma unroll 1
  for (int box = 0; box < sizes.boxes; ++box) {
    const int column = walk.first_column() + box * kBoxColumns;
    copy_box(to, maps.weight, column, walk.first_output(), full, policy);
    if (kGated) {
      copy_box(to + sizes.weight_bytes / 2, maps.weight, column,
               sizes.outputs + walk.first_output(), full, policy);
    }
    to += sizes.weight_bytes;
  }
}

template <int kRowGroups>
__device__ inline void copy_x(const Maps& maps, const Sizes& sizes, const Walk& walk, uint32_t to,
                              uint32_t full) {
  to += sizes.boxes * sizes.weight_bytes;
#pragma unroll 1
  for (int box = 0; box < sizes.boxes; ++box) {
    copy_box(to, maps.x, walk.first_column() + box * kBoxColumns, 0, full);
    to += kRowGroups * kGroupRows * kLineBytes;
  }
}

// By one thread. Weights come before the kernels that make x are done.
template <int kRowGroups, bool kGated>
__device__ inline void copy_stages(const Maps& maps, const Sizes& sizes, const Shared& shared) {
  const uint64_t policy = read_once_policy();  // so that all else stays in L2
  Walk ahead(sizes);
  int count = 0;
#pragma unroll 1
  for (; count < sizes.stages && ahead.more(); ++count, ahead.next()) {
    expect_bytes(shared.full(count), sizes.stage_bytes);
    copy_weights<kGated>(maps, sizes, ahead, shared.stage(count), shared.full(count), policy);
  }
  wait_for_kernels_before();
  let_next_kernel_start();
  Walk walk(sizes);
#pragma unroll 1
  for (int stage = 0; stage < count; ++stage, walk.next())
    copy_x<kRowGroups>(maps, sizes, walk, shared.stage(stage), shared.full(stage));
#pragma unroll 1
  for (Place place; walk.more(); walk.next(), place.next(sizes.stages)) {
    wait_for_bytes(shared.empty(place.stage), place.parity);
    const uint32_t full = shared.full(place.stage);
    expect_bytes(full, sizes.stage_bytes);
    copy_weights<kGated>(maps, sizes, walk, shared.stage(place.stage), full, policy);
    copy_x<kRowGroups>(maps, sizes, walk, shared.stage(place.stage), full);
  }
}

// A warp's sums: of each group of outputs and of rows what mma.m16n8k16 gives a thread.
template <int kRowGroups, int kGroups>
using Sums = float[kGroups][kRowGroups][4];

// A 16-byte unit of a line, by which lane l gives ldmatrix the address of a row.
__device__ inline uint32_t unit_of(int line, int unit) {
  return static_cast<uint32_t>(line * kLineBytes + (unit ^ line % 8) * 16);
}

// Operands for 32 columns.
template <int kRowGroups, int kGroups>
struct Operands {
  uint32_t weights[2][kGroups][4];
  uint32_t x[2][kRowGroups][2];
};

// `first` is the first unit of their lines.
template <int kRowGroups, int kGroups>
__device__ inline void load(Operands<kRowGroups, kGroups>& to, const uint32_t (&weights)[kGroups],
                            uint32_t x, int first, int lane) {
#pragma unroll
  for (int k = 0; k < 2; ++k) {
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      load_matrices(to.weights[k][group],
                    weights[group] + unit_of(lane % 16, first + 2 * k + lane / 16));
    }
  }
  uint32_t four[4];
  if constexpr (kRowGroups == 1) {
    load_matrices(four, x + unit_of(lane % 8, first + lane / 8));
#pragma unroll
    for (int i = 0; i < 4; ++i) to.x[i / 2][0][i % 2] = four[i];
  } else {
#pragma unroll
    for (int turn = 0; turn < kRowGroups; ++turn) {  // two groups of rows, 16 columns
      const int k = turn % 2;
      const int group = turn / 2 * 2;
      load_matrices(four, x + unit_of(group * kGroupRows + lane / 16 * 8 + lane % 8,
                                      first + 2 * k + lane / 8 % 2));
#pragma unroll
      for (int i = 0; i < 4; ++i) to.x[k][group + i / 2][i % 2] = four[i];
    }
  }
}

template <int kRowGroups, int kGroups>
__device__ inline void multiply(Sums<kRowGroups, kGroups>& sums,
                                const Operands<kRowGroups, kGroups>& operands) {
#pragma unroll
  for (int k = 0; k < 2; ++k) {
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
#pragma unroll
      for (int row = 0; row < kRowGroups; ++row) {
        multiply_add(sums[group][row], operands.weights[k][group], operands.x[k][row][0],
                     operands.x[k][row][1]);
      }
    }
  }
}

__device__ inline Float16 low_half(uint32_t pair) {
  return {static_cast<uint16_t>(pair & 0xFFFFU)};
}

// What a thread has of a group: outputs lane / 4 and 8 more, rows 2 * (lane % 4) and 1 more.
template <int kRowGroups, int kGroups, FewRowsResult kResult>
__device__ inline void write_out(const Sizes& sizes, const Sums<kRowGroups, kGroups>& sums,
                                 const int (&outputs)[kGroups], int piece, void* out, int lane) {
  constexpr bool kGated = kResult == FewRowsResult::kSwiglu;
#pragma unroll
  for (int group = 0; group < (kGated ? 1 : kGroups); ++group) {
#pragma unroll
    for (int row_group = 0; row_group < kRowGroups; ++row_group) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int output = outputs[group] + lane / 4 + i / 2 * 8;
        const int row = row_group * kGroupRows + lane % 4 * 2 + i % 2;
        if (row >= sizes.rows || output >= sizes.outputs) continue;
        const float value = sums[group][row_group][i];
        const int64_t at = piece * sizes.piece_stride + int64_t{row} * sizes.outputs + output;
        if (kResult == FewRowsResult::kFloat) {
          static_cast<float*>(out)[at] = value;
        } else if (kResult == FewRowsResult::kFloat16) {
          static_cast<Float16*>(out)[at] = low_half(to_half_pair(value, 0.0F));
        } else {
          const float gate = to_floats(to_half_pair(value, 0.0F)).x;
          const float up = to_floats(to_half_pair(sums[kGroups - 1][row_group][i], 0.0F)).x;
          static_cast<Float16*>(out)[at] =
              low_half(to_limited_half_pair(silu_product(gate, up), 0.0F));
        }
      }
    }
  }
}

// Operands are loaded while those before them are multiplied, over the end of a stage too.
template <int kRowGroups, int kGroups, FewRowsResult kResult>
__device__ inline void multiply_stages(const Sizes& sizes, const Shared& shared, void* out) {
  constexpr bool kGated = kResult == FewRowsResult::kSwiglu;
  constexpr int kHalfUnits = kBoxColumns / 16;
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  int lines[kGroups];  // of a box, the first of each group
#pragma unroll
  for (int group = 0; group < kGroups; ++group) {
    lines[group] = kGated ? group * sizes.tile_outputs + warp * kGroupOutputs
                          : (warp * kGroups + group) * kGroupOutputs;
  }
  wait_for_kernels_before();  // of which some read what is written here
  let_next_kernel_start();
  Place place;
  uint32_t weights[kGroups];
  uint32_t x = 0;
  const auto enter_stage = [&] {
    wait_for_bytes(shared.full(place.stage), place.parity);
    const uint32_t stage = shared.stage(place.stage);
#pragma unroll
    for (int group = 0; group < kGroups; ++group)
      weights[group] = stage + lines[group] * kLineBytes;
    x = stage + sizes.boxes * sizes.weight_bytes;
  };
  Operands<kRowGroups, kGroups> first_half;
  Operands<kRowGroups, kGroups> second_half;
  Sums<kRowGroups, kGroups> sums = {};
  Walk walk(sizes);
  if (walk.more()) {
    enter_stage();
    load(first_half, weights, x, 0, lane);
  }
  while (walk.more()) {
#pragma unroll 1
    for (int box = 1; box < sizes.boxes; ++box) {
      load(second_half, weights, x, kHalfUnits, lane);
      multiply(sums, first_half);
#pragma unroll
      for (int group = 0; group < kGroups; ++group) weights[group] += sizes.weight_bytes;
      x += kRowGroups * kGroupRows * kLineBytes;
      load(first_half, weights, x, 0, lane);
      multiply(sums, second_half);
    }
    load(second_half, weights, x, kHalfUnits, lane);
    multiply(sums, first_half);
    const Walk done = walk;
    const uint32_t empty = shared.empty(place.stage);
    walk.next();
    place.next(sizes.stages);
    if (walk.more()) {
      enter_stage();
      load(first_half, weights, x, 0, lane);
    }
    multiply(sums, second_half);
    arrive(empty);  // each thread for itself
    if (!done.at_end_of_tile()) continue;
    int outputs[kGroups];
#pragma unroll
    for (int group = 0; group < kGroups; ++group)
      outputs[group] = done.first_output() + lines[group];
    write_out<kRowGroups, kGroups, kResult>(sizes, sums, outputs, done.piece(), out, lane);
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
#pragma unroll
      for (int row = 0; row < kRowGroups; ++row) {
#pragma unroll
        for (int i = 0; i < 4; ++i) sums[group][row][i] = 0.0F;
      }
    }
  }
}

template <int kRowGroups, int kGroups, FewRowsResult kResult>
__global__ void __launch_bounds__((kMostWarps + 1) * kWarpThreads, 1)
    few_rows_kernel(const __grid_constant__ Maps maps, Sizes sizes, void* out) {
  extern __shared__ unsigned char memory[];
  const Shared shared = {(shared_address(memory) + kAlignment - 1) / kAlignment * kAlignment,
                         sizes.stage_bytes};
  if (threadIdx.x == 0) {
#pragma unroll 1
    for (int stage = 0; stage < sizes.stages; ++stage) {
      init_copy_barrier(shared.full(stage));
      init_copy_barrier(shared.empty(stage), sizes.warps * kWarpThreads);
    }
  }
  __syncthreads();
  const int thread = static_cast<int>(threadIdx.x) - sizes.warps * kWarpThreads;
  if (thread == 0) copy_stages<kRowGroups, kResult == FewRowsResult::kSwiglu>(maps, sizes, shared);
  if (thread > 0) {
    wait_for_kernels_before();
    let_next_kernel_start();
  }
  if (thread < 0) multiply_stages<kRowGroups, kGroups, kResult>(sizes, shared, out);
}

using Kernel = void (*)(Maps, Sizes, void*);

// By rows / 8, rounded up to one of these.
constexpr int kRowGroups[] = {1, 2, 4, 6};
struct Kernels {
  Kernel one;  // group of outputs for a warp
  Kernel two;
};
template <FewRowsResult kResult>
constexpr std::array<Kernels, std::size(kRowGroups)> kKernels = {
    Kernels{few_rows_kernel<1, 1, kResult>, few_rows_kernel<1, 2, kResult>},
    Kernels{few_rows_kernel<2, 1, kResult>, few_rows_kernel<2, 2, kResult>},
    Kernels{few_rows_kernel<4, 1, kResult>, few_rows_kernel<4, 2, kResult>},
    Kernels{few_rows_kernel<6, 1, kResult>, few_rows_kernel<6, 2, kResult>}};
template <>
constexpr std::array<Kernels, std::size(kRowGroups)> kKernels<FewRowsResult::kSwiglu> = {
    Kernels{nullptr, few_rows_kernel<1, 2, FewRowsResult::kSwiglu>},
    Kernels{nullptr, few_rows_kernel<2, 2, FewRowsResult::kSwiglu>},
    Kernels{nullptr, few_rows_kernel<4, 2, FewRowsResult::kSwiglu>},
    Kernels{nullptr, few_rows_kernel<6, 2, FewRowsResult::kSwiglu>}};

const std::array<Kernels, std::size(kRowGroups)>& kernels_of(FewRowsResult result) {
  switch (result) {
    case FewRowsResult::kFloat16:
      return kKernels<FewRowsResult::kFloat16>;
    case FewRowsResult::kFloat:
      return kKernels<FewRowsResult::kFloat>;
    default:
      return kKernels<FewRowsResult::kSwiglu>;
  }
}

// 0 where the kernels can't run.
int multiprocessors() {
  static const int result = [] {
    const int count = multiprocessors_with_code(
        reinterpret_cast<const void*>(kKernels<FewRowsResult::kFloat>[0].one));
    if (count == 0) return 0;
    for (const auto result :
         {FewRowsResult::kFloat16, FewRowsResult::kFloat, FewRowsResult::kSwiglu}) {
      for (const Kernels& kernels : kernels_of(result)) {
        for (const Kernel kernel : {kernels.one, kernels.two}) {
          if (kernel == nullptr) continue;
          check_device(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                            kSharedBytes),
                       "a kernel's shared memory");
        }
      }
    }
    return count;
  }();
  return result;
}

// How many groups of outputs a tile has: the multiprocessor that has the most to read reads the
// least.
int groups_of_tile(int outputs, int pieces, int rows, bool gated) {
  const int halves = gated ? 2 : 1;
  int best = 0;
  int64_t least = 0;
  for (int groups = 1; groups <= 2 * kMostWarps / halves; ++groups) {
    if (!gated && groups > kMostWarps && groups % 2 != 0) continue;
    const int64_t tiles = pieces * ceil_div(outputs, groups * kGroupOutputs);
    const int64_t waves = ceil_div(tiles, multiprocessors());
    const int64_t lines = waves * (halves * groups * kGroupOutputs + rows / 2);
    if (best != 0 && lines > least) continue;
    best = groups;
    least = lines;
  }
  return best;
}

}  // namespace

bool few_rows_gemm_supports(const FewRowsShape& shape) {
  return shape.columns % (int64_t{shape.pieces} * kBoxColumns) == 0 && multiprocessors() > 0;
}

void few_rows_gemm(const FewRowsArgs& args, Stream stream) {
  const FewRowsShape& shape = args.shape;
  CHECK(few_rows_gemm_supports(shape) && args.rows >= 1 && args.rows <= kMostFewRows);
  const bool gated = shape.result == FewRowsResult::kSwiglu;
  const auto* row_groups = std::lower_bound(std::begin(kRowGroups), std::end(kRowGroups),
                                            ceil_div(args.rows, kGroupRows));
  const int x_lines = *row_groups * kGroupRows;
  Sizes sizes = {};
  sizes.rows = args.rows;
  sizes.outputs = static_cast<int>(gated ? shape.outputs / 2 : shape.outputs);
  const int groups = groups_of_tile(sizes.outputs, shape.pieces, x_lines, gated);
  const bool two = gated || groups > kMostWarps;
  sizes.warps = two && !gated ? groups / 2 : groups;
  sizes.tile_outputs = groups * kGroupOutputs;
  sizes.tiles_of_piece = static_cast<int>(ceil_div(sizes.outputs, sizes.tile_outputs));
  sizes.tiles = shape.pieces * sizes.tiles_of_piece;
  sizes.weight_bytes = (gated ? 2 : 1) * groups * kGroupBytes;
  const int boxes = static_cast<int>(shape.columns / shape.pieces / kBoxColumns);
  const int box_bytes = sizes.weight_bytes + x_lines * kLineBytes;
  sizes.boxes = kMostBoxes;
  while (sizes.boxes > 1 && (boxes % sizes.boxes != 0 || sizes.boxes * box_bytes > kMostStageBytes))
    sizes.boxes /= 2;
  sizes.steps = boxes / sizes.boxes;
  sizes.stage_bytes = sizes.boxes * box_bytes;
  sizes.stages = std::min(kMostStages, kRingBytes / sizes.stage_bytes);
  sizes.piece_stride = args.piece_stride;
  // Where a stage has one box of columns, the line's other half is worth having for the next.
  const bool wide = sizes.boxes > 1;
  const Maps maps = {
      box_map(args.x, args.rows, shape.columns, x_lines),
      box_map(args.weight, shape.outputs, shape.columns, sizes.tile_outputs,
              wide ? CU_TENSOR_MAP_L2_PROMOTION_NONE : CU_TENSOR_MAP_L2_PROMOTION_L2_256B)};
  const Kernels& kernels =
      kernels_of(shape.result)[static_cast<size_t>(row_groups - std::begin(kRowGroups))];
  launch(two ? kernels.two : kernels.one,
         dim3(static_cast<unsigned>(std::min(sizes.tiles, multiprocessors()))),
         static_cast<unsigned>((sizes.warps + 1) * kWarpThreads), kSharedBytes, stream, maps, sizes,
         args.out);
}

}  // namespace puna::kernels::cuda
