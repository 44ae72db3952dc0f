// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/cpu_ops.h"

#include <cstring>

#include "base/check.h"
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

// Turns each pair (2i, 2i + 1) of a tile's row by the angle of its place in the head.
void rotate(float* values, int64_t first_column, int64_t columns, int64_t head_dim,
            const float* rotation) {
  for (int64_t j = 0; j < columns; j += 2) {
    const float* angle = rotation + (first_column + j) % head_dim;
    const float even = values[j];
    const float odd = values[j + 1];
    values[j] = even * angle[0] - odd * angle[1];
    values[j + 1] = even * angle[1] + odd * angle[0];
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
                 shape.head_dim, name_, kMaxHeadDim);
  }
  if (shape.num_heads / shape.num_kv_heads > kAttentionRows) {
    return Error(ErrorCode::kUnsupported,
                 "{} query heads per KV head: the {} kernels take at most {}",
                 shape.num_heads / shape.num_kv_heads, name_, kAttentionRows);
  }
  return Ok{};
}

void CpuOps::embed(Lane& lane, const PackedMatrix& table, std::span<const int32_t> tokens,
                   FloatRows out) const {
  const HostMatrix::Part& part = HostMatrix::of(table).parts().front();
  const Lane::Range share = lane.share(static_cast<int64_t>(tokens.size()));
  for (int64_t i = share.begin; i < share.end; ++i) {
    const int32_t token = tokens[static_cast<size_t>(i)];
    CHECK(token >= 0 && token < part.rows);
    quant::dequantize(part.type, {part.blocks(token, 0), static_cast<size_t>(part.row_bytes)},
                      {out.row(i), static_cast<size_t>(out.columns)});
  }
}

void CpuOps::rms_norm(Lane& lane, FloatRows x, std::span<const int32_t> rows, int32_t num_rows,
                      const float* weight, float eps, Activations out) const {
  const Lane::Range share = lane.share(num_rows);
  for (int64_t i = share.begin; i < share.end; ++i) {
    const float* from = x.row(rows.empty() ? i : rows[static_cast<size_t>(i)]);
    kernels_.rms_norm(from, weight, x.columns, x.stride(), eps, float_rows(out).row(i));
  }
}

void CpuOps::matmul(Lane& lane, Activations x, int32_t num_rows, const PackedMatrix& w,
                    FloatRows out) const {
  const HostMatrix::Part& part = HostMatrix::of(w).parts().front();
  TileProduct product(kernels_, float_rows(x));
  alignas(64) TileValues values;
  for_each_tile(lane, num_rows, part.rows, [&](const Tile& tile) {
    product.compute(part, tile, values);
    for (int64_t i = 0; i < tile.rows; ++i) {
      std::memcpy(out.row(tile.first_row + i) + tile.first_column, values + i * kTileStride,
                  static_cast<size_t>(tile.columns) * sizeof(float));
    }
  });
}

void CpuOps::matmul_add(Lane& lane, Activations x, int32_t num_rows, const PackedMatrix& w,
                        FloatRows out) const {
  const HostMatrix::Part& part = HostMatrix::of(w).parts().front();
  TileProduct product(kernels_, float_rows(x));
  alignas(64) TileValues values;
  for_each_tile(lane, num_rows, part.rows, [&](const Tile& tile) {
    product.compute(part, tile, values);
    for (int64_t i = 0; i < tile.rows; ++i) {
      float* to = out.row(tile.first_row + i) + tile.first_column;
      for (int64_t j = 0; j < tile.columns; ++j) to[j] += values[i * kTileStride + j];
    }
  });
}

void CpuOps::matmul_swiglu(Lane& lane, Activations x, int32_t num_rows, const PackedMatrix& gate_up,
                           Activations out) const {
  const std::vector<HostMatrix::Part>& parts = HostMatrix::of(gate_up).parts();
  TileProduct product(kernels_, float_rows(x));
  alignas(64) TileValues gate;
  alignas(64) TileValues up;
  for_each_tile(lane, num_rows, parts[0].rows, [&](const Tile& tile) {
    product.compute(parts[0], tile, gate);
    product.compute(parts[1], tile, up);
    // Whole vectors, so what stands beyond the tile's columns must at least be numbers.
    const int64_t padded = padded_columns(tile.columns);
    for (int64_t i = 0; i < tile.rows; ++i) {
      float* gate_row = gate + i * kTileStride;
      float* up_row = up + i * kTileStride;
      std::fill(gate_row + tile.columns, gate_row + padded, 0.0F);
      std::fill(up_row + tile.columns, up_row + padded, 0.0F);
      kernels_.swiglu(gate_row, up_row, padded, gate_row);
      std::memcpy(float_rows(out).row(tile.first_row + i) + tile.first_column, gate_row,
                  static_cast<size_t>(tile.columns) * sizeof(float));
    }
  });
}

void CpuOps::matmul_qkv(Lane& lane, Activations x, const PackedMatrix& qkv, FloatRows rotations,
                        std::span<const SequenceRows> sequences, const KvCache& kv, int32_t layer,
                        FloatRows q) const {
  const KvLayout cache(kv);
  const int64_t head_dim = kv.shape.head_dim;
  const std::vector<HostMatrix::Part>& parts = HostMatrix::of(qkv).parts();
  TileProduct product(kernels_, float_rows(x));
  alignas(64) TileValues values;

  const auto finish_row = [&](size_t part, const Tile& tile, int64_t row, int64_t tile_row,
                              int64_t position, const SequenceRows& sequence) {
    float* from = values + tile_row * kTileStride;
    if (part != 2) rotate(from, tile.first_column, tile.columns, head_dim, rotations.row(row));
    if (part == 0) {
      std::memcpy(q.row(row) + tile.first_column, from,
                  static_cast<size_t>(tile.columns) * sizeof(float));
      return;
    }
    for (int64_t done = 0; done < tile.columns;) {  // a tile may cross heads
      const int64_t column = tile.first_column + done;
      const int64_t count = std::min(tile.columns - done, head_dim - column % head_dim);
      const int64_t head = column / head_dim;
      std::byte* to = part == 1 ? cache.key(layer, sequence.block_table, position, head)
                                : cache.value(layer, sequence.block_table, position, head);
      to += column % head_dim * KvLayout::element_bytes(kv.shape.type);
      if (kv.shape.type == KvType::kF32) {
        std::memcpy(to, from + done, static_cast<size_t>(count) * sizeof(float));
      } else {
        kernels_.to_half(from + done, count, reinterpret_cast<uint16_t*>(to));
      }
      done += count;
    }
  };
  for (size_t part = 0; part < parts.size(); ++part) {
    for_each_tile(lane, rows_of(sequences), parts[part].rows, [&](const Tile& tile) {
      product.compute(parts[part], tile, values);
      for_each_tile_row(
          tile, sequences,
          [&](int64_t row, int64_t tile_row, int64_t position, const SequenceRows& sequence) {
            finish_row(part, tile, row, tile_row, position, sequence);
          });
    });
  }
}

}  // namespace puna::kernels
