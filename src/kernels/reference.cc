// SPDX-License-Identifier: Apache-2.0
#include "kernels/reference.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/numeric.h"
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

// Calls use(row, column, value) for every element of x * part in this lane's share of the columns.
template <typename Use>
void multiply(const Lane& lane, Activations x, int64_t num_rows, const Part& part, Use use) {
  std::vector<float> weights(static_cast<size_t>(x.columns));
  const FloatRows in = float_rows(x);
  const Lane::Range share = lane.share(part.rows);
  for (int64_t column = share.begin; column < share.end; ++column) {
    decode_row(part, column, weights);
    for (int64_t row = 0; row < num_rows; ++row) {
      use(row, column, static_cast<float>(dot(in.row(row), weights)));
    }
  }
}

// Element `index` of a row of the cache. f16 saturates: no infinity may enter another row's sums.
void store_kv(KvType type, std::byte* row, int64_t index, float value) {
  if (type == KvType::kF32) {
    std::memcpy(row + index * 4, &value, 4);
    return;
  }
  const Float16 half = to_float16(std::clamp(value, -65504.0F, 65504.0F));
  std::memcpy(row + index * 2, &half, 2);
}

double load_kv(KvType type, const std::byte* row, int64_t index) {
  float value = 0.0F;
  Float16 half;
  if (type == KvType::kF32) {
    std::memcpy(&value, row + index * 4, 4);
    return static_cast<double>(value);
  }
  std::memcpy(&half, row + index * 2, 2);
  return static_cast<double>(to_float(half));
}

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
    float* to = float_rows(out).row(i);
    for (int64_t k = 0; k < x.columns; ++k) {
      to[k] = static_cast<float>(static_cast<double>(from[k]) * scale) * weight[k];
    }
  }
}

void ReferenceOps::matmul_qkv(Lane& lane, Activations x, const PackedMatrix& qkv,
                              FloatRows rotations, std::span<const SequenceRows> sequences,
                              const KvCache& kv, int32_t layer, FloatRows q) const {
  const KvLayout cache(kv);
  const std::vector<Part>& parts = HostMatrix::of(qkv).parts();
  std::vector<float> even_weights(static_cast<size_t>(x.columns));
  std::vector<float> odd_weights(static_cast<size_t>(x.columns));
  for (size_t index = 0; index < parts.size(); ++index) {
    const Lane::Range share = lane.share(parts[index].rows / 2);
    for (int64_t column = 2 * share.begin; column < 2 * share.end; column += 2) {
      decode_row(parts[index], column, even_weights);
      decode_row(parts[index], column + 1, odd_weights);
      for (const SequenceRows& sequence : sequences) {
        for (int32_t i = 0; i < sequence.num_rows; ++i) {
          const int64_t row = sequence.first_row + i;
          const float* in = float_rows(x).row(row);
          const float plain[2] = {static_cast<float>(dot(in, even_weights)),
                                  static_cast<float>(dot(in, odd_weights))};
          const auto [even, odd] = rotated(plain, rotations.row(row) + column % kv.shape.head_dim);
          if (index == 0) {
            q.row(row)[column] = even;
            q.row(row)[column + 1] = odd;
            continue;
          }
          const int32_t position = sequence.first_position + i;
          const int64_t head = column / kv.shape.head_dim;
          const int64_t in_head = column % kv.shape.head_dim;
          std::byte* to = index == 1 ? cache.key(layer, sequence.block_table, position, head)
                                     : cache.value(layer, sequence.block_table, position, head);
          store_kv(kv.shape.type, to, in_head, index == 1 ? even : plain[0]);
          store_kv(kv.shape.type, to, in_head + 1, index == 1 ? odd : plain[1]);
        }
      }
    }
  }
}

namespace {

// One query head of one row against positions 0 … position.
void attend(const float* q, const KvLayout& cache, int32_t layer, int64_t kv_head,
            const int32_t* block_table, int32_t position, float* out) {
  const int64_t head_dim = cache.shape.head_dim;
  const KvType type = cache.shape.type;
  std::vector<double> weights(static_cast<size_t>(position) + 1);
  for (int32_t j = 0; j <= position; ++j) {
    const std::byte* key = cache.key(layer, block_table, j, kv_head);
    double sum = 0.0;
    for (int64_t d = 0; d < head_dim; ++d) {
      sum += static_cast<double>(q[d]) * load_kv(type, key, d);
    }
    weights[static_cast<size_t>(j)] = sum / std::sqrt(static_cast<double>(head_dim));
  }
  const double max = *std::max_element(weights.begin(), weights.end());
  double total = 0.0;
  for (double& weight : weights) total += weight = std::exp(weight - max);
  std::vector<double> sums(static_cast<size_t>(head_dim), 0.0);
  for (int32_t j = 0; j <= position; ++j) {
    const std::byte* value = cache.value(layer, block_table, j, kv_head);
    for (int64_t d = 0; d < head_dim; ++d) {
      sums[static_cast<size_t>(d)] += weights[static_cast<size_t>(j)] * load_kv(type, value, d);
    }
  }
  for (int64_t d = 0; d < head_dim; ++d) {
    out[d] = static_cast<float>(sums[static_cast<size_t>(d)] / total);
  }
}

}  // namespace

void ReferenceOps::attention(Lane& lane, FloatRows q, std::span<const SequenceRows> sequences,
                             const KvCache& kv, int32_t layer, Activations out) const {
  const KvLayout cache(kv);
  const int64_t head_dim = kv.shape.head_dim;
  const int64_t group = kv.shape.num_heads / kv.shape.num_kv_heads;
  for (const SequenceRows& sequence : sequences) {
    const Lane::Range share =
        lane.share(static_cast<int64_t>(sequence.num_rows) * kv.shape.num_heads);
    for (int64_t item = share.begin; item < share.end; ++item) {
      const int64_t i = item / kv.shape.num_heads;
      const int64_t head = item % kv.shape.num_heads;
      const int64_t row = sequence.first_row + i;
      attend(q.row(row) + head * head_dim, cache, layer, head / group, sequence.block_table,
             sequence.first_position + static_cast<int32_t>(i),
             float_rows(out).row(row) + head * head_dim);
    }
  }
}

void ReferenceOps::matmul(Lane& lane, Activations x, int32_t num_rows, const PackedMatrix& w,
                          FloatRows out) const {
  multiply(lane, x, num_rows, HostMatrix::of(w).parts().front(),
           [&](int64_t row, int64_t column, float value) { out.row(row)[column] = value; });
}

void ReferenceOps::matmul_add(Lane& lane, Activations x, int32_t num_rows, const PackedMatrix& w,
                              FloatRows out) const {
  multiply(lane, x, num_rows, HostMatrix::of(w).parts().front(),
           [&](int64_t row, int64_t column, float value) { out.row(row)[column] += value; });
}

void ReferenceOps::matmul_swiglu(Lane& lane, Activations x, int32_t num_rows,
                                 const PackedMatrix& gate_up, Activations out) const {
  const std::vector<Part>& parts = HostMatrix::of(gate_up).parts();
  const FloatRows to = float_rows(out);
  multiply(lane, x, num_rows, parts[0],
           [&](int64_t row, int64_t column, float value) { to.row(row)[column] = value; });
  multiply(lane, x, num_rows, parts[1], [&](int64_t row, int64_t column, float value) {
    const auto gate = static_cast<double>(to.row(row)[column]);
    to.row(row)[column] =
        static_cast<float>(gate / (1.0 + std::exp(-gate)) * static_cast<double>(value));
  });
}

}  // namespace puna::kernels
