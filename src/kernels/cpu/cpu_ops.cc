// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/cpu_ops.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "kernels/cpu/kv_layout.h"
#include "kernels/cpu/panel_weights.h"
#include "kernels/cpu/tile_product.h"
#include "quant/dequant.h"

namespace puna::kernels {
namespace {

// Part of `rows` that a tile covers, as a sub-run of one sequence: use(row of the step, row of the
// tile, position, sequence).
template <typename Use>
void for_each_tile_row(const Tile& tile, std::span<const SequenceRows> sequences, Use use) {
  for (const SequenceRows& sequence : sequences) {
    const int64_t begin = std::max<int64_t>(sequence.first_row, tile.first_row);
    const int64_t end =
        std::min<int64_t>(sequence.first_row + sequence.num_rows, tile.first_row + tile.rows);
    for (int64_t row = begin; row < end; ++row) {
      use(row, row - tile.first_row, sequence.first_position + (row - sequence.first_row),
          sequence);
    }
  }
}

int64_t rows_of(std::span<const SequenceRows> sequences) {
  int64_t rows = 0;
  for (const SequenceRows& sequence : sequences) rows += sequence.num_rows;
  return rows;
}

}  // namespace

Result<> CpuOps::check_shape(const KvShape& shape) const {
  if (shape.head_dim > kMaxHeadDim) {
    return Error(ErrorCode::kUnsupported, "heads of {} elements: the {} kernels take at most {}",
                 shape.head_dim, name(), kMaxHeadDim);
  }
  if (shape.num_heads / shape.num_kv_heads > kAttentionRows) {
    return Error(ErrorCode::kUnsupported,
                 "{} query heads per KV head: the {} kernels take at most {}",
                 shape.num_heads / shape.num_kv_heads, name(), kAttentionRows);
  }
  return Ok{};
}

void CpuOps::embed(Lane& lane, const PackedMatrix& table, std::span<const int32_t> tokens,
                   FloatRows out) const {
  const HostMatrix& matrix = HostMatrix::of(table);
  const HostMatrix::Part& part = matrix.parts().front();
  const Lane::Range share = lane.share(static_cast<int64_t>(tokens.size()));
  for (int64_t i = share.begin; i < share.end; ++i) {
    const int32_t token = tokens[static_cast<size_t>(i)];
    CHECK(token >= 0 && token < part.rows);
    if (matrix.packed()) {
      const HostMatrix::Panels& panels = matrix.panels().front();
      PanelColumn(panels.kind, panels.pair(token / kPairColumns), token % kPairColumns)
          .read({out.row(i), static_cast<size_t>(out.columns)});
      continue;
    }
    quant::dequantize(part.type, {part.blocks(token, 0), static_cast<size_t>(part.row_bytes)},
                      {out.row(i), static_cast<size_t>(out.columns)});
  }
}

void CpuOps::rms_norm(Lane& lane, FloatRows x, std::span<const int32_t> rows, int32_t num_rows,
                      const float* weight, float eps, Activations out) const {
  constexpr int64_t kPiece = 1024;
  alignas(64) float piece[kPiece];
  const Lane::Range share = lane.share(num_rows);
  for (int64_t i = share.begin; i < share.end; ++i) {
    const float* from = x.row(rows.empty() ? i : rows[static_cast<size_t>(i)]);
    const float scale = kernels_.micro.rms_scale(from, x.columns, x.stride(), eps);
    for (int64_t begin = 0; begin < x.columns; begin += kPiece) {
      const int64_t count = std::min(kPiece, x.columns - begin);
      kernels_.micro.scale_by(from + begin, weight + begin, padded_columns(count), scale, piece);
      store_activations(panels(), piece, i, begin, count, out);
    }
  }
}

void CpuOps::matmul(Lane& lane, Activations x, int32_t num_rows, const PackedMatrix& w,
                    FloatRows out) const {
  TileProduct product(kernels_.micro, panels(), x);
  const TileGrid grid{num_rows, HostMatrix::of(w).parts().front().rows, kPairColumns};
  lane.deal(grid.size(), [&](int64_t item) {
    const Tile tile = grid.tile(item);
    product.compute(w, 0, tile);
    for (int64_t i = 0; i < tile.rows; ++i) {
      std::memcpy(out.row(tile.first_row + i) + tile.first_column, product.row(i),
                  static_cast<size_t>(tile.columns) * sizeof(float));
    }
  });
}

void CpuOps::matmul_add(Lane& lane, Activations x, int32_t num_rows, const PackedMatrix& w,
                        FloatRows out) const {
  TileProduct product(kernels_.micro, panels(), x);
  const TileGrid grid{num_rows, HostMatrix::of(w).parts().front().rows, kPairColumns};
  lane.deal(grid.size(), [&](int64_t item) {
    const Tile tile = grid.tile(item);
    product.compute(w, 0, tile);
    for (int64_t i = 0; i < tile.rows; ++i) {
      float* to = out.row(tile.first_row + i) + tile.first_column;
      const float* from = product.row(i);
      for (int64_t j = 0; j < tile.columns; ++j) to[j] += from[j];
    }
  });
}

void CpuOps::matmul_swiglu(Lane& lane, Activations x, int32_t num_rows, const PackedMatrix& gate_up,
                           Activations out) const {
  TileProduct gate(kernels_.micro, panels(), x);
  TileProduct up(kernels_.micro, panels(), x);
  const bool int8 = out.format.type == ActivationType::kInt8;
  const int64_t width = int8 ? out.format.group : kPairColumns;
  const TileGrid grid{num_rows, HostMatrix::of(gate_up).parts().front().rows, width};
  lane.deal(grid.size(), [&](int64_t item) {
    const Tile tile = grid.tile(item);
    gate.compute(gate_up, 0, tile);
    up.compute(gate_up, 1, tile);
    for (int64_t i = 0; i < tile.rows; ++i) {
      float* row = gate.row(i);
      kernels_.micro.swiglu(row, up.row(i), padded_columns(tile.columns), row);
      store_activations(panels(), row, tile.first_row + i, tile.first_column, tile.columns, out);
    }
  });
}

// Tiles are whole heads, so a tile's row is rotated and stored head by head.
void CpuOps::matmul_qkv(Lane& lane, Activations x, const PackedMatrix& qkv, FloatRows rotations,
                        std::span<const SequenceRows> sequences, const KvCache& kv, int32_t layer,
                        FloatRows q) const {
  const KvWriter cache(kv, kernels_.attention.stores);
  const int64_t head_dim = kv.shape.head_dim;
  const int64_t width = std::max<int64_t>(1, kPairColumns / head_dim) * head_dim;
  const std::vector<HostMatrix::Part>& parts = HostMatrix::of(qkv).parts();
  TileGrid grids[3];
  int64_t items[4] = {};  // where each part's begin
  for (size_t part = 0; part < 3; ++part) {
    grids[part] = {rows_of(sequences), parts[part].rows, width};
    items[part + 1] = items[part] + grids[part].size();
  }
  TileProduct product(kernels_.micro, panels(), x);
  lane.deal(items[3], [&](int64_t item) {
    const size_t part = item < items[1] ? 0 : item < items[2] ? 1 : 2;
    const Tile tile = grids[part].tile(item - items[part]);
    product.compute(qkv, part, tile);
    for_each_tile_row(
        tile, sequences,
        [&](int64_t row, int64_t tile_row, int64_t position, const SequenceRows& sequence) {
          float* from = product.row(tile_row);
          if (part != 2) kernels_.micro.rotate(from, tile.columns, head_dim, rotations.row(row));
          if (part == 0) {
            std::memcpy(q.row(row) + tile.first_column, from,
                        static_cast<size_t>(tile.columns) * sizeof(float));
            return;
          }
          for (int64_t done = 0; done < tile.columns; done += head_dim) {
            cache.store(part == 1 ? KvPart::kKey : KvPart::kValue, layer, sequence.block_table,
                        position, (tile.first_column + done) / head_dim, from + done);
          }
        });
  });
}

}  // namespace puna::kernels
