// SPDX-License-Identifier: Apache-2.0
// Where keys and values lie in a KV block of the GPU: of a layer, [blocks, (k, v), num_kv_heads,
// cells], the cells of one head being [8 positions, slabs of 64 columns, position, the slab's
// columns]. The 16-byte units of a position's line in a slab are permuted as attention wants them
// in shared memory: eight lines' units of one column are in different banks, and lines of 128 bytes
// lie as wgmma's 128-byte swizzle has them. So blocks are copied as they lie.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define PUNA_HOST_DEVICE __host__ __device__
#else
#define PUNA_HOST_DEVICE
#endif

namespace puna::kernels::cuda {

inline constexpr int32_t kCellsPerBlock = 16;  // positions in a KV block
inline constexpr int32_t kUnitElements = 8;    // f16 values in 16 bytes

// The number of a head's cells, of keys or of values in a block, in a layer.
PUNA_HOST_DEVICE constexpr int64_t kv_cells(int32_t block, int32_t num_kv_heads, int32_t kv_head,
                                            bool values) {
  return (int64_t{block} * 2 + (values ? 1 : 0)) * num_kv_heads + kv_head;
}

// The place in its cells, counted in units, of unit `unit` of the position in cell `cell`, which
// has `units`: 2, 4 or a multiple of 8.
PUNA_HOST_DEVICE constexpr int32_t placed_unit(int32_t cell, int32_t unit, int32_t units) {
  if (units < 8) return cell * units + (unit ^ ((cell / (8 / units)) & (units - 1)));
  return (cell / 8 * (units / 8) + unit / 8) * 64 + cell % 8 * 8 + ((unit ^ cell) % 8);
}
// The cell that the unit in this place belongs to.
PUNA_HOST_DEVICE constexpr int32_t cell_of_place(int32_t place, int32_t units) {
  return units < 8 ? place / units : place / (units * 8) * 8 + place / 8 % 8;
}

}  // namespace puna::kernels::cuda
