// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/tile_product.h"

#include "quant/dequant.h"

namespace puna::kernels {
namespace {

void decode(const MicroKernels& kernels, const HostMatrix::Part& part, int64_t row, int64_t column,
            int64_t count, float* out) {
  const std::byte* blocks = part.blocks(row, column);
  if (const DecodeFunction vectorised = kernels.decoder(part.type)) {
    vectorised(blocks, count, out);
    return;
  }
  const auto bytes = static_cast<size_t>(count / part.block_elements * part.block_bytes);
  quant::dequantize(part.type, {blocks, bytes}, {out, static_cast<size_t>(count)});
}

}  // namespace

void TileProduct::compute(const HostMatrix::Part& part, const Tile& tile, TileValues& values) {
  for (int64_t depth = 0; depth < x_.columns; depth += kTileDepth) {
    const int64_t count = std::min(kTileDepth, x_.columns - depth);
    const int64_t padded = padded_columns(count);
    const int64_t stride =
        padded + kRowAlign;  // 4 KiB apart, ten rows would share eight cache ways
    for (int64_t j = 0; j < tile.columns; ++j) {
      float* row = weights_ + j * stride;
      decode(kernels_, part, tile.first_column + j, depth, count, row);
      std::fill(row + count, row + padded, 0.0F);
    }
    kernels_.dot_tile({.a = x_.row(tile.first_row) + depth,
                       .a_stride = x_.stride(),
                       .m = tile.rows,
                       .w = weights_,
                       .w_stride = stride,
                       .n = tile.columns,
                       .depth = padded,
                       .c = values,
                       .c_stride = kTileStride,
                       .accumulate = depth > 0});
  }
}

}  // namespace puna::kernels
