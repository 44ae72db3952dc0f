// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/tile_product.h"

#include "base/check.h"
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

void TileProduct::compute(const PackedMatrix& w, size_t part, const Tile& tile) {
  const HostMatrix& matrix = HostMatrix::of(w);
  CHECK(x_.format == matrix.input());
  if (matrix.packed()) {
    compute_panels(matrix, part, tile);
  } else {
    compute_floats(matrix.parts()[part], tile);
  }
}

void TileProduct::compute_floats(const HostMatrix::Part& part, const Tile& tile) {
  offset_ = 0;
  const FloatRows x = float_rows(x_);
  const int64_t width = tile.rows < kFewRows ? kFewFloatColumns : kFloatColumns;
  for (int64_t column = 0; column < tile.columns; column += width) {
    const int64_t columns = std::min(width, tile.columns - column);
    for (int64_t depth = 0; depth < x.columns; depth += kFloatDepth) {
      const int64_t count = std::min(kFloatDepth, x.columns - depth);
      const int64_t padded = padded_columns(count);
      const int64_t stride =
          padded + kRowAlign;  // 4 KiB apart, ten rows would share eight cache ways
      for (int64_t j = 0; j < columns; ++j) {
        float* row = weights_ + j * stride;
        decode(kernels_, part, tile.first_column + column + j, depth, count, row);
        std::fill(row + count, row + padded, 0.0F);
      }
      kernels_.dot_tile({.a = x.row(tile.first_row) + depth,
                         .a_stride = x.stride(),
                         .m = tile.rows,
                         .w = weights_,
                         .w_stride = stride,
                         .n = columns,
                         .depth = padded,
                         .c = values_ + column,
                         .c_stride = kStride,
                         .accumulate = depth > 0});
    }
  }
  for (int64_t i = 0; i < tile.rows; ++i) {
    std::fill(row(i) + tile.columns, row(i) + padded_columns(tile.columns), 0.0F);
  }
}

void TileProduct::compute_panels(const HostMatrix& w, size_t part, const Tile& tile) {
  const HostMatrix::Panels& panels = w.panels()[part];
  const int64_t first_pair = tile.first_column / kPairColumns;
  const int64_t last_pair = (tile.first_column + tile.columns - 1) / kPairColumns;
  offset_ = tile.first_column - first_pair * kPairColumns;
  for (int64_t pair = first_pair; pair <= last_pair; ++pair) {
    float* c = values_ + (pair - first_pair) * kPairColumns;
    if (panels.kind == PanelKind::kBF16) {
      compute_bf16(panels, pair, tile, c);
    } else {
      compute_pair(panels, pair, tile, c);
    }
  }
}

void TileProduct::compute_pair(const HostMatrix::Panels& panels, int64_t pair, const Tile& tile,
                               float* c) {
  const Int8Layout x(x_);
  const bool unpacks = tile.rows >= panels_.unpack_from_rows;
  const int64_t all_groups = x.columns / 32;
  const int64_t units = panel_units(panels.kind);
  PairProduct job{
      .kind = panels.kind, .pair = panels.pair(pair), .m = tile.rows, .c = c, .c_stride = kStride};
  // Few rows have room for the corrections of more groups.
  const int64_t most = unpacks || tile.rows > kFewRows ? kUnpackedGroups : kDirectGroups;
  for (int64_t group = 0; group < all_groups; group += most) {
    job.first_group = group;
    job.groups = std::min(most, all_groups - group);
    job.accumulate = group > 0;
    job.x = {.values = x.values(tile.first_row),
             .scales = x.scales(tile.first_row),
             .stride = x.stride,
             .corrections = unpacked_.corrections,
             .corrections_stride = most * units * int64_t{sizeof(int32_t)},
             .wide = x_.format.group != 32};
    for (int64_t i = 0; i < tile.rows; ++i) {
      panels_.correct(panels.kind, job.x.wide, x.sums(tile.first_row + i) + group * 2,
                      x.scales(tile.first_row + i) + group, job.groups,
                      unpacked_.corrections + i * most * units);
    }
    if (unpacks) {
      panels_.unpack(panels.kind, job.pair, group, job.groups, unpacked_.quads, unpacked_.scales,
                     unpacked_.minima);
      job.unpacked = {unpacked_.quads, unpacked_.scales, unpacked_.minima};
      job.next = panels.pair(pair) + (group + most) * (panels.bytes / all_groups);
    }
    panels_.product(job);
  }
}

void TileProduct::compute_bf16(const HostMatrix::Panels& panels, int64_t pair, const Tile& tile,
                               float* c) {
  const Bf16Rows x(x_);
  for (int64_t depth = 0; depth < x.stride; depth += kBf16Depth) {
    const auto* weights = reinterpret_cast<const uint16_t*>(panels.pair(pair));
    panels_.bf16_product({.pair = weights + depth * kPairColumns,
                          .x = x.row(tile.first_row) + depth,
                          .x_stride = x.stride,
                          .depth = std::min(kBf16Depth, x.stride - depth),
                          .m = tile.rows,
                          .c = c,
                          .c_stride = kStride,
                          .accumulate = depth > 0});
  }
}

}  // namespace puna::kernels
