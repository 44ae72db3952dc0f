// SPDX-License-Identifier: Apache-2.0
// q|k|v projection with rotation into the paged cache, and attention over it: against the
// reference, and the same bits however a sequence is cut into steps, whatever its blocks are and
// whoever is beside it.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>
#include <string>

#include "kernels/cpu/isa.h"
#include "kernels/test_blocks.h"

namespace puna::kernels {
namespace {

constexpr int32_t kLongPositions = 150;  // three chunks of attention, ten blocks
constexpr int32_t kBlocks = 2 * ((kLongPositions + kKvBlockTokens - 1) / kKvBlockTokens);
constexpr int64_t kHidden = 64;

struct Shape {
  int32_t heads;
  int32_t kv_heads;
  int32_t head_dim;
  KvType type;
};

// One attention layer with random weights: feeds hidden states, returns what attention gives.
class Layer {
 public:
  Layer(std::string_view isa, const Shape& shape, RowOrder order)
      : ops_(make_cpu_ops(isa, {.activations = ActivationMode::kFloat}).value()),
        kv_shape_{.num_layers = 2,
                  .num_blocks = kBlocks,
                  .num_heads = shape.heads,
                  .num_kv_heads = shape.kv_heads,
                  .head_dim = shape.head_dim,
                  .type = shape.type},
        q_weights_(formats::TensorType::kF32, shape.heads * shape.head_dim, kHidden, 1),
        k_weights_(formats::TensorType::kF16, shape.kv_heads * shape.head_dim, kHidden, 2),
        v_weights_(formats::TensorType::kQ8_0, shape.kv_heads * shape.head_dim, kHidden, 3),
        cache_memory_(ops_->allocate(ops_->kv_bytes(kv_shape_), "test").value()) {
    const MatrixPart parts[] = {q_weights_.part(order), k_weights_.part(order), v_weights_.part()};
    qkv_ = ops_->pack(parts, {.head_dim = shape.head_dim}).value();
    for (int32_t i = 0; i < shape.head_dim / 2; ++i) {
      inverse_frequency_.push_back(
          std::pow(10000.0F, -2.0F * static_cast<float>(i) / static_cast<float>(shape.head_dim)));
    }
  }

  // x: rows of the step. Result: [rows, heads * head_dim].
  RowBuffer step(RowBuffer& x, std::span<const SequenceRows> sequences, int32_t lanes) {
    int32_t rows = 0;
    for (const SequenceRows& sequence : sequences) rows += sequence.num_rows;
    const int64_t columns = int64_t{kv_shape_.num_heads} * kv_shape_.head_dim;
    RowBuffer rotations(rows, kv_shape_.head_dim);
    RowBuffer queries(rows, columns);
    RowBuffer out(rows, columns);
    const KvCache cache{kv_shape_, cache_memory_.data()};
    const auto each_lane = [&](auto op) {
      for (int32_t i = 0; i < lanes; ++i) {
        Lane lane(i, lanes);
        op(lane);
      }
    };
    each_lane(
        [&](Lane& l) { ops_->rotations(l, sequences, inverse_frequency_, rotations.floats()); });
    each_lane([&](Lane& l) {
      ops_->matmul_qkv(l, x.activations(), *qkv_, rotations.floats(), sequences, cache, 1,
                       queries.floats());
    });
    each_lane([&](Lane& l) {
      ops_->attention(l, queries.floats(), sequences, cache, 1, out.activations());
    });
    return out;
  }

  // All positions of a sequence, `chunk` at a time.
  RowBuffer feed(RowBuffer& x, int32_t chunk, const std::vector<int32_t>& table, int32_t lanes) {
    const int64_t columns = int64_t{kv_shape_.num_heads} * kv_shape_.head_dim;
    RowBuffer all(kLongPositions, columns);
    for (int32_t done = 0; done < kLongPositions; done += chunk) {
      const int32_t count = std::min(chunk, kLongPositions - done);
      RowBuffer piece(count, kHidden);
      std::memcpy(piece.floats().data, x.floats().row(done),
                  static_cast<size_t>(count * piece.floats().stride()) * sizeof(float));
      const SequenceRows rows{0, count, done, table.data()};
      RowBuffer out = step(piece, {&rows, 1}, lanes);
      std::memcpy(all.floats().row(done), out.floats().data,
                  static_cast<size_t>(count * out.floats().stride()) * sizeof(float));
    }
    return all;
  }

 private:
  std::unique_ptr<Ops> ops_;
  KvShape kv_shape_;
  RandomWeights q_weights_;
  RandomWeights k_weights_;
  RandomWeights v_weights_;
  Buffer cache_memory_;
  std::unique_ptr<PackedMatrix> qkv_;
  std::vector<float> inverse_frequency_;
};

std::vector<int32_t> table_from(int32_t first, int32_t step) {
  std::vector<int32_t> table;
  for (int32_t i = 0; i < kBlocks / 2; ++i) table.push_back(first + i * step);
  return table;
}

RowBuffer hidden_states(uint32_t seed) {
  RowBuffer x = RowBuffer::random(kLongPositions, kHidden, seed);
  for (int64_t i = 0; i < kLongPositions; ++i) {  // scores of a few units, as in a real model
    for (int64_t j = 0; j < kHidden; ++j) x.floats().row(i)[j] *= 0.2F;
  }
  return x;
}

// Keys and values near the middle of two bf16 or int8 round to either, and a key's moves a score.
// With bf16 instructions, queries and weights are rounded, too.
float tolerance(KvType type, std::string_view isa) {
  if (type == KvType::kF32) return 2e-5F;
  return isa == "avx512_bf16" ? 1e-1F : 1e-2F;
}

class Attention : public testing::TestWithParam<Shape> {};

TEST_P(Attention, EqualsTheReference) {
  for (const RowOrder order : {RowOrder::kAsStored, RowOrder::kInterleaveHalves}) {
    RowBuffer x = hidden_states(11);
    Layer reference("scalar", GetParam(), order);
    RowBuffer want = reference.feed(x, kLongPositions, table_from(0, 1), 2);
    for (const std::string_view isa : available_isas()) {
      Layer layer(isa, GetParam(), order);
      RowBuffer got = layer.feed(x, kLongPositions, table_from(0, 1), 2);
      const float relative = tolerance(GetParam().type, isa);
      for (int64_t i = 0; i < kLongPositions; ++i) {
        for (int64_t j = 0; j < want.floats().columns; ++j) {
          const float value = want.floats().row(i)[j];
          ASSERT_NEAR(got.floats().row(i)[j], value, relative * (1.0F + std::abs(value)))
              << isa << " row " << i;
        }
      }
    }
  }
}

TEST_P(Attention, SameBitsHoweverTheSequenceIsCut) {
  RowBuffer x = hidden_states(12);
  for (const std::string_view isa : available_isas()) {
    Layer layer(isa, GetParam(), RowOrder::kInterleaveHalves);
    RowBuffer whole = layer.feed(x, kLongPositions, table_from(0, 1), 1);
    const auto bytes =
        static_cast<size_t>(kLongPositions * whole.floats().stride()) * sizeof(float);
    for (const int32_t chunk : {1, 7, 16, 64, 100}) {
      RowBuffer other = layer.feed(x, chunk, table_from(kBlocks - 1, -2), 1 + chunk % 3);
      EXPECT_EQ(std::memcmp(whole.floats().data, other.floats().data, bytes), 0)
          << isa << " chunk " << chunk;
    }
  }
}

TEST_P(Attention, SameBitsBesideOthers) {
  RowBuffer x = hidden_states(13);
  for (const std::string_view isa : available_isas()) {
    Layer layer(isa, GetParam(), RowOrder::kAsStored);
    const std::vector<int32_t> table = table_from(0, 1);
    const std::vector<int32_t> other_table = table_from(kBlocks / 2, 1);
    RowBuffer alone = layer.feed(x, kLongPositions, table, 1);
    // Rows 0 … 99 of a first sequence, the last 50 positions of ours between two pieces of it.
    RowBuffer mixed = RowBuffer::random(150, kHidden, 14);
    std::memcpy(mixed.floats().row(60), x.floats().row(100),
                static_cast<size_t>(50 * mixed.floats().stride()) * sizeof(float));
    const SequenceRows sequences[] = {{0, 60, 0, other_table.data()},
                                      {60, 50, 100, table.data()},
                                      {110, 40, 60, other_table.data()}};
    RowBuffer out = layer.step(mixed, sequences, 3);
    EXPECT_EQ(std::memcmp(out.floats().row(60), alone.floats().row(100),
                          static_cast<size_t>(50 * out.floats().stride()) * sizeof(float)),
              0)
        << isa;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, Attention,
    testing::Values(Shape{4, 2, 16, KvType::kF32}, Shape{9, 3, 64, KvType::kBF16},
                    Shape{3, 3, 6, KvType::kF32}, Shape{8, 1, 128, KvType::kInt8},
                    Shape{2, 1, 80, KvType::kBF16}, Shape{4, 4, 8, KvType::kInt8}));

}  // namespace
}  // namespace puna::kernels
