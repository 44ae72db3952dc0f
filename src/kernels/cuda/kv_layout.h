// SPDX-License-Identifier: Apache-2.0
// Where keys and values lie in a KV block of the GPU: of a layer, [blocks, (k, v), num_kv_heads, 16
// positions, head_dim], the 16-byte units of a position's line permuted as attention wants them in
// shared memory. So a tile is copied as it lies, and eight lines' units of one column are in
// different banks.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define PUNA_HOST_DEVICE __host__ __device__
#else
#define PUNA_HOST_DEVICE
#endif

namespace puna::kernels::cuda {

inline constexpr int32_t kCellsPerBlock = 16;  // positions in a KV block
inline constexpr int32_t kUnitElements = 8;    // bf16 values in 16 bytes

// The number of a position's line, of keys or of values, in a layer.
PUNA_HOST_DEVICE constexpr int64_t kv_line(int32_t block, int32_t num_kv_heads, int32_t kv_head,
                                           bool values, int32_t place) {
  return ((int64_t{block} * 2 + (values ? 1 : 0)) * num_kv_heads + kv_head) * kCellsPerBlock +
         place;
}

// The place of unit `unit` in the line of row `row`, with `units` in a line: 2, 4 or a multiple
// of 8.
PUNA_HOST_DEVICE constexpr int32_t placed_unit(int32_t row, int32_t unit, int32_t units) {
  return units >= 8 ? unit ^ (row & 7) : unit ^ ((row / (8 / units)) & (units - 1));
}

}  // namespace puna::kernels::cuda
