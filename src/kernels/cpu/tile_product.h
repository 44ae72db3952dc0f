// SPDX-License-Identifier: Apache-2.0
// The product of a block of activation rows with a tile of weight rows: the core of every matmul of
// CpuOps, which differ in what they do with the finished tile.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/host_ops.h"
#include "kernels/cpu/micro_kernels.h"

namespace puna::kernels {

inline constexpr int64_t kTileDepth = 1024;  // part of the numeric contract: see cpu_ops.h
inline constexpr int64_t kTileColumns = 24;  // of the result = rows of the weight; 96 KiB decoded
inline constexpr int64_t kSmallTileColumns = 6;  // few rows: the decoded tile (24 KiB) stays in L1
inline constexpr int64_t kTileRows = 128;        // activation rows per decoded tile
inline constexpr int64_t kTileStride = 32;       // floats between the rows of a finished tile
inline constexpr int64_t kFewRows = 8;           // below it the small tile

// A finished tile: [rows, columns], rows kTileStride apart.
using TileValues = float[kTileRows * kTileStride];

// Which part of the result a tile is.
struct Tile {
  int64_t first_row = 0;
  int64_t rows = 0;
  int64_t first_column = 0;
  int64_t columns = 0;
};

class TileProduct {
 public:
  TileProduct(const MicroKernels& kernels, FloatRows x) : kernels_(kernels), x_(x) {}

  // values = x[tile rows] * part[tile columns].
  void compute(const HostMatrix::Part& part, const Tile& tile, TileValues& values);

 private:
  const MicroKernels& kernels_;
  FloatRows x_;
  alignas(64) float weights_[kTileColumns * (kTileDepth + kRowAlign)];
};

// Calls use(tile) for this lane's share of the tiles of a [num_rows, columns] result. Tile sizes
// depend on the lanes; results don't. Tiles start at even columns.
template <typename Use>
void for_each_tile(const Lane& lane, int64_t num_rows, int64_t columns, Use use) {
  const int64_t row_blocks = (num_rows + kTileRows - 1) / kTileRows;
  const int64_t wide_tiles = (columns + kTileColumns - 1) / kTileColumns;
  const bool wide = num_rows >= kFewRows && row_blocks * wide_tiles >= 4 * lane.count();
  const int64_t width = wide ? kTileColumns : kSmallTileColumns;
  const int64_t tiles = (columns + width - 1) / width;
  const Lane::Range share = lane.share(row_blocks * tiles);
  for (int64_t item = share.begin; item < share.end; ++item) {
    const int64_t first_row = item / tiles * kTileRows;
    const int64_t first_column = item % tiles * width;
    use(Tile{.first_row = first_row,
             .rows = std::min(kTileRows, num_rows - first_row),
             .first_column = first_column,
             .columns = std::min(width, columns - first_column)});
  }
}

}  // namespace puna::kernels
