// SPDX-License-Identifier: Apache-2.0
#include "model/tapped_ops.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace puna::model {

using kernels::Activations;
using kernels::FloatRows;
using kernels::Lane;
using kernels::PackedMatrix;

namespace {

constexpr int64_t kTogether = 8;  // inputs that are added up before a sum is touched
constexpr int64_t kInCache = 64;  // inputs that the second cache holds while the sums pass by

// Row `i` of the triangle gains the products of `count` inputs, kTogether at most. Missing ones
// count as zeros, so that every sum is made in one order.
void add_row(const FloatRows& x, int64_t first, int64_t count, int64_t i, float* out) {
  const float* v[kTogether];
  float f[kTogether];
  for (int64_t k = 0; k < kTogether; ++k) {
    v[k] = x.row(first + (k < count ? k : 0));
    f[k] = k < count ? v[k][i] : 0.0F;
  }
  for (int64_t j = 0; j <= i; ++j) {
    out[j] += ((f[0] * v[0][j] + f[1] * v[1][j]) + (f[2] * v[2][j] + f[3] * v[3][j])) +
              ((f[4] * v[4][j] + f[5] * v[5][j]) + (f[6] * v[6][j] + f[7] * v[7][j]));
  }
}

// Rows of the triangle are dealt one by one: they grow longer. Each stays in the first cache for
// all inputs of a piece; the triangle is large, and to read it is what this costs.
void add_products(const Lane& lane, const FloatRows& x, int64_t num_rows, float* products) {
  for (int64_t piece = 0; piece < num_rows; piece += kInCache) {
    const int64_t end = std::min(piece + kInCache, num_rows);
    for (int64_t i = lane.index(); i < x.columns; i += lane.count()) {
      for (int64_t first = piece; first < end; first += kTogether) {
        add_row(x, first, std::min(kTogether, end - first), i, products + i * x.columns);
      }
    }
  }
}

}  // namespace

Result<std::unique_ptr<PackedMatrix>> TappedOps::pack(std::span<const kernels::MatrixPart> parts,
                                                      const kernels::PackOptions& options) const {
  ASSIGN_OR_RETURN(std::unique_ptr<PackedMatrix> packed, inner_.pack(parts, options));
  auto matrix = std::make_unique<Matrix>();
  for (const kernels::MatrixPart& part : parts) matrix->parts.push_back(part.data.data());
  matrix->sums.resize(static_cast<size_t>(parts.front().columns));
  if (with_products_.contains(matrix->parts.front())) {
    matrix->products.resize(matrix->sums.size() * matrix->sums.size());
  }
  by_matrix_[packed.get()] = matrix.get();
  matrices_.push_back(std::move(matrix));
  return packed;
}

void TappedOps::tap(const Lane& lane, const Activations& x, int64_t num_rows,
                    const PackedMatrix& matrix) const {
  CHECK(x.format.type == kernels::ActivationType::kF32);
  Matrix& into = *by_matrix_.at(&matrix);
  const FloatRows rows{reinterpret_cast<float*>(x.data), x.columns};
  const Lane::Range share = lane.share(x.columns);
  for (int64_t row = 0; row < num_rows; ++row) {
    const float* values = rows.row(row);
    for (int64_t column = share.begin; column < share.end; ++column) {
      const auto value = static_cast<double>(values[column]);
      into.sums[static_cast<size_t>(column)] += value * value;
    }
  }
  if (!into.products.empty()) add_products(lane, rows, num_rows, into.products.data());
  if (lane.index() == 0) into.rows += static_cast<uint64_t>(num_rows);
}

void TappedOps::matmul_qkv(Lane& lane, Activations x, const PackedMatrix& qkv, FloatRows rotations,
                           std::span<const kernels::SequenceRows> sequences,
                           const kernels::KvCache& kv, int32_t layer, FloatRows q) const {
  int64_t rows = 0;
  for (const kernels::SequenceRows& sequence : sequences) rows += sequence.num_rows;
  tap(lane, x, rows, qkv);
  inner_.matmul_qkv(lane, x, qkv, rotations, sequences, kv, layer, q);
}

void TappedOps::matmul(Lane& lane, Activations x, int32_t num_rows, const PackedMatrix& w,
                       FloatRows out) const {
  tap(lane, x, num_rows, w);
  inner_.matmul(lane, x, num_rows, w, out);
}

void TappedOps::matmul_add(Lane& lane, Activations x, int32_t num_rows, const PackedMatrix& w,
                           FloatRows out) const {
  tap(lane, x, num_rows, w);
  inner_.matmul_add(lane, x, num_rows, w, out);
}

void TappedOps::matmul_swiglu(Lane& lane, Activations x, int32_t num_rows,
                              const PackedMatrix& gate_up, Activations out) const {
  tap(lane, x, num_rows, gate_up);
  inner_.matmul_swiglu(lane, x, num_rows, gate_up, out);
}

}  // namespace puna::model
