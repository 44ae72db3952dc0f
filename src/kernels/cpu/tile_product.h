// SPDX-License-Identifier: Apache-2.0
// The product of a block of activation rows with some columns of the result: the core of every
// matmul of CpuOps, which differ in what they do with the finished tile.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/activation_rows.h"
#include "kernels/cpu/host_matrix.h"
#include "kernels/cpu/micro_kernels.h"
#include "kernels/cpu/panel_kernels.h"

namespace puna::kernels {

inline constexpr int64_t kTileRows = 256;     // activation rows per tile
inline constexpr int64_t kTileColumns = 256;  // most columns of the result that are asked for

// Which part of the result a tile is.
struct Tile {
  int64_t first_row = 0;
  int64_t rows = 0;
  int64_t first_column = 0;
  int64_t columns = 0;
};

// Lives on a lane's stack: 0.6 MiB, of which a form of weights touches its part only.
class TileProduct {
 public:
  TileProduct(const MicroKernels& kernels, const PanelKernels& panels, const Activations& x)
      : kernels_(kernels), panels_(panels), x_(x) {}

  // Computes x[tile rows] * part[tile columns]; row() gives the result until the next compute().
  void compute(const PackedMatrix& w, size_t part, const Tile& tile);
  // Row `index` of the tile, tile.columns values; what follows up to a multiple of kRowAlign are
  // finite numbers.
  float* row(int64_t index) { return values_ + offset_ + index * kStride; }

 private:
  // Tiles may begin inside a pair of panels; whole pairs are computed.
  static constexpr int64_t kStride = kTileColumns + 2 * kPairColumns;
  static constexpr int64_t kFloatDepth = 1024;    // part of the numeric contract: see cpu_ops.h
  static constexpr int64_t kFloatColumns = 32;    // decoded at once: 128 KiB
  static constexpr int64_t kFewFloatColumns = 6;  // for few rows: 24 KiB, stays in L1
  static constexpr int64_t kFewRows = 8;
  static constexpr int64_t kUnpackedGroups = 16;  // 512 of depth: a pair's quads fill half of L1
  static constexpr int64_t kDirectGroups = 64;    // for at most kFewRows
  static constexpr int64_t kBf16Depth = 256;

  void compute_floats(const HostMatrix::Part& part, const Tile& tile);
  void compute_panels(const HostMatrix& w, size_t part, const Tile& tile);
  void compute_pair(const HostMatrix::Panels& panels, int64_t pair, const Tile& tile, float* c);
  void compute_bf16(const HostMatrix::Panels& panels, int64_t pair, const Tile& tile, float* c);

  const MicroKernels& kernels_;
  const PanelKernels& panels_;
  const Activations x_;
  int64_t offset_ = 0;
  alignas(64) float values_[kTileRows * kStride];
  alignas(64) float weights_[kFloatColumns * (kFloatDepth + kRowAlign)];
  struct {
    alignas(64) uint8_t quads[kUnpackedGroups * 2 * 512];
    alignas(64) float scales[kUnpackedGroups * 2 * kPairColumns];
    alignas(64) float minima[kUnpackedGroups * 2 * kPairColumns];
    alignas(64) int32_t corrections[kTileRows * kUnpackedGroups * 2];
  } unpacked_;
};

// The tiles of a [num_rows, columns] result, `width` columns each.
struct TileGrid {
  int64_t num_rows = 0;
  int64_t columns = 0;
  int64_t width = kPairColumns;
  int64_t row_blocks() const {
    return std::max<int64_t>(1, (num_rows + kTileRows - 1) / kTileRows);
  }
  int64_t size() const { return row_blocks() * ((columns + width - 1) / width); }
  // Neighbouring items share columns, so that a lane's share is a run of the weights.
  Tile tile(int64_t item) const {
    const int64_t first_row = item % row_blocks() * kTileRows;
    const int64_t first_column = item / row_blocks() * width;
    return {.first_row = first_row,
            .rows = std::min(kTileRows, num_rows - first_row),
            .first_column = first_column,
            .columns = std::min(width, columns - first_column)};
  }
};

}  // namespace puna::kernels
