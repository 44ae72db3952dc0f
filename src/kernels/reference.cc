// SPDX-License-Identifier: Apache-2.0
#include "kernels/reference.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/numeric.h"
#include "kernels/cpu/kv_layout.h"
#include "kernels/cpu/tile_product.h"
#include "quant/dequant.h"

namespace puna::kernels {
namespace {

using Part = HostMatrix::Part;

void decode_row(const Part& part, int64_t row, std::span<float> out) {
  quant::dequantize(part.type, {part.blocks(row, 0), static_cast<size_t>(part.row_bytes)}, out);
}

double dot(const float* x, const std::vector<float>& w) {
  double sum = 0.0;
  for (size_t k = 0; k < w.size(); ++k)
    sum += static_cast<double>(x[k]) * static_cast<double>(w[k]);
  return sum;
}

// Calls use(row, column, value) for every element of x * part in this lane's share of the columns;
// whole pairs (2i, 2i + 1) of columns are on one lane.
template <typename Use>
void multiply(const Lane& lane, Activations x, int64_t num_rows, const PackedMatrix& w,
              size_t part_index, Use use) {
  static const MicroKernels kNone;
  const HostMatrix& matrix = HostMatrix::of(w);
  const Part& part = matrix.parts()[part_index];
  CHECK(x.format == matrix.input());
  if (matrix.packed()) {
    const auto product = std::make_unique<TileProduct>(kNone, scalar_panel_kernels(), x);
    const TileGrid grid{num_rows, part.rows, kPairColumns};
    const Lane::Range share = lane.share(grid.size());
    for (int64_t item = share.begin; item < share.end; ++item) {
      const Tile tile = grid.tile(item);
      product->compute(w, part_index, tile);
      for (int64_t j = 0; j < tile.columns; ++j) {
        for (int64_t i = 0; i < tile.rows; ++i)
          use(tile.first_row + i, tile.first_column + j, product->row(i)[j]);
      }
    }
    return;
  }
  std::vector<float> weights(static_cast<size_t>(x.columns));
  const FloatRows in = float_rows(x);
  const Lane::Range share = lane.share((part.rows + 1) / 2);
  for (int64_t column = 2 * share.begin; column < std::min(2 * share.end, part.rows); ++column) {
    decode_row(part, column, weights);
    for (int64_t row = 0; row < num_rows; ++row) {
      use(row, column, static_cast<float>(dot(in.row(row), weights)));
    }
  }
}

// [rows, columns] of f32, not padded.
class RowValues {
 public:
  RowValues(int64_t rows, int64_t columns)
      : columns_(columns), values_(static_cast<size_t>(rows * columns)) {}
  float& at(int64_t row, int64_t column) {
    return values_[static_cast<size_t>(row * columns_ + column)];
  }

 private:
  int64_t columns_;
  std::vector<float> values_;
};

// The pair turned by the angle whose (cos, sin) is `rotation`.
std::pair<float, float> rotated(const float* pair, const float* rotation) {
  return {pair[0] * rotation[0] - pair[1] * rotation[1],
          pair[0] * rotation[1] + pair[1] * rotation[0]};
}

}  // namespace

void ReferenceOps::embed(Lane& lane, const PackedMatrix& table, std::span<const int32_t> tokens,
                         FloatRows out) const {
  const Part& part = HostMatrix::of(table).parts().front();
  const Lane::Range share = lane.share(static_cast<int64_t>(tokens.size()));
  for (int64_t i = share.begin; i < share.end; ++i) {
    const int32_t token = tokens[static_cast<size_t>(i)];
    CHECK(token >= 0 && token < part.rows);
    decode_row(part, token, {out.row(i), static_cast<size_t>(out.columns)});
  }
}

void ReferenceOps::rms_norm(Lane& lane, FloatRows x, std::span<const int32_t> rows,
                            int32_t num_rows, const float* weight, float eps,
                            Activations out) const {
  const Lane::Range share = lane.share(num_rows);
  for (int64_t i = share.begin; i < share.end; ++i) {
    const float* from = x.row(rows.empty() ? i : rows[static_cast<size_t>(i)]);
    double sum = 0.0;
    for (int64_t k = 0; k < x.columns; ++k)
      sum += static_cast<double>(from[k]) * static_cast<double>(from[k]);
    const double scale =
        1.0 / std::sqrt(sum / static_cast<double>(x.columns) + static_cast<double>(eps));
    std::vector<float> to(static_cast<size_t>(x.columns));
    for (int64_t k = 0; k < x.columns; ++k) {
      to[static_cast<size_t>(k)] =
          static_cast<float>(static_cast<double>(from[k]) * scale) * weight[k];
    }
    store_activations(panels(), to.data(), i, 0, x.columns, out);
  }
}

// One lane does it all: heads are rotated and stored whole.
void ReferenceOps::matmul_qkv(Lane& lane, Activations x, const PackedMatrix& qkv,
                              FloatRows rotations, std::span<const SequenceRows> sequences,
                              const KvCache& kv, int32_t layer, FloatRows q) const {
  if (lane.index() != 0) return;
  Lane whole;
  const KvWriter cache(kv, scalar_kv_stores());
  const int64_t head_dim = kv.shape.head_dim;
  int64_t num_rows = 0;
  for (const SequenceRows& sequence : sequences) num_rows += sequence.num_rows;
  for (size_t part = 0; part < 3; ++part) {
    const int64_t columns = HostMatrix::of(qkv).parts()[part].rows;
    RowValues values(num_rows, columns);
    multiply(whole, x, num_rows, qkv, part,
             [&](int64_t row, int64_t column, float value) { values.at(row, column) = value; });
    for (const SequenceRows& sequence : sequences) {
      for (int64_t i = 0; i < sequence.num_rows; ++i) {
        const int64_t row = sequence.first_row + i;
        for (int64_t column = 0; part != 2 && column < columns; column += 2) {
          const auto [even, odd] =
              rotated(&values.at(row, column), rotations.row(row) + column % head_dim);
          values.at(row, column) = even;
          values.at(row, column + 1) = odd;
        }
        if (part == 0) std::copy_n(&values.at(row, 0), columns, q.row(row));
        for (int64_t head = 0; part != 0 && head < columns / head_dim; ++head) {
          cache.store(part == 1 ? KvPart::kKey : KvPart::kValue, layer, sequence.block_table,
                      sequence.first_position + i, head, &values.at(row, head * head_dim));
        }
      }
    }
  }
}

namespace {

// One query head of one row against positions 0 … position.
void attend(const float* q, const KvLayout& cache, int32_t layer, int64_t kv_head,
            const int32_t* block_table, int64_t position, float* out) {
  const int64_t head_dim = cache.shape().head_dim;
  const auto element = [&](KvPart part, int64_t j, int64_t d) {
    return static_cast<double>(cache.element(part, layer, block_table, j, kv_head, d));
  };
  std::vector<double> weights(static_cast<size_t>(position) + 1);
  for (int64_t j = 0; j <= position; ++j) {
    double sum = 0.0;
    for (int64_t d = 0; d < head_dim; ++d)
      sum += static_cast<double>(q[d]) * element(KvPart::kKey, j, d);
    weights[static_cast<size_t>(j)] = sum / std::sqrt(static_cast<double>(head_dim));
  }
  const double max = *std::max_element(weights.begin(), weights.end());
  double total = 0.0;
  for (double& weight : weights) total += weight = std::exp(weight - max);
  for (int64_t d = 0; d < head_dim; ++d) {
    double sum = 0.0;
    for (int64_t j = 0; j <= position; ++j)
      sum += weights[static_cast<size_t>(j)] * element(KvPart::kValue, j, d);
    out[d] = static_cast<float>(sum / total);
  }
}

}  // namespace

void ReferenceOps::attention(Lane& lane, FloatRows q, std::span<const SequenceRows> sequences,
                             const KvCache& kv, int32_t layer, Activations out) const {
  const KvLayout cache(kv);
  const int64_t head_dim = kv.shape.head_dim;
  const int64_t group = kv.shape.num_heads / kv.shape.num_kv_heads;
  RowValues attended(1, out.columns);
  for (const SequenceRows& sequence : sequences) {
    const Lane::Range share = lane.share(sequence.num_rows);
    for (int64_t i = share.begin; i < share.end; ++i) {
      const int64_t row = sequence.first_row + i;
      for (int64_t head = 0; head < kv.shape.num_heads; ++head) {
        attend(q.row(row) + head * head_dim, cache, layer, head / group, sequence.block_table,
               sequence.first_position + i, &attended.at(0, head * head_dim));
      }
      store_activations(panels(), &attended.at(0, 0), row, 0, out.columns, out);
    }
  }
}

void ReferenceOps::matmul(Lane& lane, Activations x, int32_t num_rows, const PackedMatrix& w,
                          FloatRows out) const {
  multiply(lane, x, num_rows, w, 0,
           [&](int64_t row, int64_t column, float value) { out.row(row)[column] = value; });
}

void ReferenceOps::matmul_add(Lane& lane, Activations x, int32_t num_rows, const PackedMatrix& w,
                              FloatRows out) const {
  multiply(lane, x, num_rows, w, 0,
           [&](int64_t row, int64_t column, float value) { out.row(row)[column] += value; });
}

// Each lane computes whole groups of the result, for they share a scale.
void ReferenceOps::matmul_swiglu(Lane& lane, Activations x, int32_t num_rows,
                                 const PackedMatrix& gate_up, Activations out) const {
  if (lane.index() != 0) return;
  Lane whole;
  RowValues values(num_rows, out.columns);
  multiply(whole, x, num_rows, gate_up, 0,
           [&](int64_t row, int64_t column, float value) { values.at(row, column) = value; });
  multiply(whole, x, num_rows, gate_up, 1, [&](int64_t row, int64_t column, float value) {
    const auto gate = static_cast<double>(values.at(row, column));
    values.at(row, column) =
        static_cast<float>(gate / (1.0 + std::exp(-gate)) * static_cast<double>(value));
  });
  for (int64_t row = 0; row < num_rows; ++row)
    store_activations(panels(), &values.at(row, 0), row, 0, out.columns, out);
}

}  // namespace puna::kernels
