// SPDX-License-Identifier: Apache-2.0
// Attention alone, over keys and values that the test stores: every KV type, instruction set, head
// size and group against the scalar ops; the same bits however rows and positions are cut; and what
// stands in unused slots. Every cache begins as NaN bits.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/activation_rows.h"
#include "kernels/cpu/attention_plan.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/test_blocks.h"

namespace puna::kernels {
namespace {

struct Case {
  KvType type;
  int32_t head_dim;
  int32_t group;
};

std::string name_of(const Case& c) {
  const char* types[] = {"f32", "bf16", "int8"};
  return std::string(types[static_cast<size_t>(c.type)]) + "_dim" + std::to_string(c.head_dim) +
         "_group" + std::to_string(c.group);
}

constexpr int32_t kKvHeads = 2;
constexpr int32_t kLayer = 1;

// A cache of one sequence whose keys, values and queries depend on the position alone.
class Sequence {
 public:
  Sequence(std::string_view isa, const Case& c, int32_t positions, bool reversed_blocks = false)
      : ops_(make_cpu_ops(isa, {.activations = ActivationMode::kFloat}).value()),
        shape_{.num_layers = 2,
               .num_blocks = (positions + kKvBlockTokens - 1) / kKvBlockTokens,
               .num_heads = kKvHeads * c.group,
               .num_kv_heads = kKvHeads,
               .head_dim = c.head_dim,
               .type = c.type},
        memory_(ops_->allocate(ops_->kv_bytes(shape_), "test").value()) {
    const KvLayout layout(cache());
    std::memset(memory_.data(), 0xFF, static_cast<size_t>(layout.blocks_bytes()));
    for (int32_t i = 0; i < shape_.num_blocks; ++i)
      table_.push_back(reversed_blocks ? shape_.num_blocks - 1 - i : i);
  }

  int64_t columns() const { return int64_t{shape_.num_heads} * shape_.head_dim; }
  const KvShape& shape() const { return shape_; }
  KvCache cache() const { return {shape_, memory_.data()}; }
  const std::vector<int32_t>& table() const { return table_; }

  // Stores positions [first, first + count).
  void store(int32_t first, int32_t count) {
    const KvWriter writer(cache(), scalar_kv_stores());
    for (int32_t position = first; position < first + count; ++position) {
      for (int64_t head = 0; head < kKvHeads; ++head) {
        const auto key = values(position, head, 1);
        const auto value = values(position, head, 2);
        writer.store(KvPart::kKey, kLayer, table_.data(), position, head, key.data());
        writer.store(KvPart::kValue, kLayer, table_.data(), position, head, value.data());
      }
    }
  }
  // What attention gives for rows at positions [first, first + count).
  RowBuffer attend(int32_t first, int32_t count, int32_t lanes) {
    RowBuffer out(count, columns());
    RowBuffer q = queries(first, count);
    const SequenceRows rows{0, count, first, table_.data()};
    for (int32_t i = 0; i < lanes; ++i) {
      Lane lane(i, lanes);
      ops_->attention(lane, q.floats(), {&rows, 1}, cache(), kLayer, out.activations());
    }
    return out;
  }
  void attend_into(Activations out, int32_t first, int32_t count) {
    RowBuffer q = queries(first, count);
    const SequenceRows rows{0, count, first, table_.data()};
    Lane lane;
    ops_->attention(lane, q.floats(), {&rows, 1}, cache(), kLayer, out);
  }
  RowBuffer attend_with(ThreadPool& pool, int32_t first, int32_t count) {
    RowBuffer out(count, columns());
    RowBuffer q = queries(first, count);
    const SequenceRows rows{0, count, first, table_.data()};
    pool.run([&](Lane& lane) {
      ops_->attention(lane, q.floats(), {&rows, 1}, cache(), kLayer, out.activations());
    });
    return out;
  }
  RowBuffer queries(int32_t first, int32_t count) const {
    RowBuffer q(count, columns());
    for (int32_t i = 0; i < count; ++i) {
      for (int32_t head = 0; head < shape_.num_heads; ++head) {
        const auto one = values(first + i, head, 3);
        std::copy(one.begin(), one.end(), q.floats().row(i) + head * shape_.head_dim);
      }
    }
    return q;
  }

 private:
  std::vector<float> values(int32_t position, int64_t head, uint32_t kind) const {
    std::minstd_rand random(static_cast<uint32_t>(position * 64 + head) * 4 + kind);
    std::normal_distribution<float> normal;
    std::vector<float> result(static_cast<size_t>(shape_.head_dim));
    for (float& value : result) value = normal(random);
    return result;
  }

  std::unique_ptr<Ops> ops_;
  KvShape shape_;
  Buffer memory_;
  std::vector<int32_t> table_;
};

size_t bytes_of(RowBuffer& rows, int64_t count) {
  return static_cast<size_t>(count * rows.floats().stride()) * sizeof(float);
}

class AttentionCases : public testing::TestWithParam<Case> {};

// Rows at the beginning, across the end of a span, and one at an even and an odd last position.
constexpr int32_t kPositions = 600;
constexpr SequenceRows kPieces[] = {{.num_rows = 5},
                                    {.num_rows = 20, .first_position = 505},
                                    {.num_rows = 1, .first_position = 599}};

TEST_P(AttentionCases, EqualTheScalarOps) {
  Sequence scalar("scalar", GetParam(), kPositions);
  scalar.store(0, kPositions);
  for (const SequenceRows& piece : kPieces) {
    RowBuffer want = scalar.attend(piece.first_position, piece.num_rows, 1);
    for (const std::string_view isa : available_isas()) {
      if (isa == "scalar") continue;
      Sequence sequence(isa, GetParam(), kPositions);
      sequence.store(0, piece.first_position + piece.num_rows);
      RowBuffer got = sequence.attend(piece.first_position, piece.num_rows, 2);
      const bool rounds = isa == "avx512_bf16" && GetParam().type != KvType::kF32;
      for (int64_t i = 0; i < piece.num_rows; ++i) {
        for (int64_t j = 0; j < sequence.columns(); ++j) {
          const float value = want.floats().row(i)[j];
          const float near = (rounds ? 1e-2F : 1e-5F) * (1.0F + std::abs(value));
          ASSERT_NEAR(got.floats().row(i)[j], value, near)
              << isa << " position " << piece.first_position + i << " column " << j;
        }
      }
    }
  }
}

// Windows of a long sequence: its beginning, both ends of its spans of 512, its odd last chunk.
// Between them positions are only stored: all rows of 128 heads would take minutes under
// sanitizers.
struct Window {
  int32_t first;
  std::vector<int32_t> pieces;

  int32_t count() const { return std::accumulate(pieces.begin(), pieces.end(), 0); }
};
constexpr int32_t kLong = 1300;
const std::vector<Window>& windows() {
  static const std::vector<Window> all = {
      {0, {1, 1, 3, 27, 96}}, {496, {9, 1, 30}}, {1013, {1, 20}}, {1280, {19, 1}}};
  return all;
}

TEST_P(AttentionCases, SameBitsHoweverRowsAndPositionsAreCut) {
  const auto pool = ThreadPool::create(3).value();
  for (const std::string_view isa : available_isas()) {
    if (isa == "scalar") continue;
    Sequence whole(isa, GetParam(), kLong);
    whole.store(0, kLong);
    Sequence cut(isa, GetParam(), kLong, true);
    int32_t stored = 0;
    int32_t lanes = 1;
    for (const Window& window : windows()) {
      RowBuffer want = whole.attend(window.first, window.count(), 1);
      const auto expect_same = [&](RowBuffer& got, int32_t first, int32_t count, const char* what) {
        const float* rows = want.floats().row(first - window.first);
        ASSERT_EQ(std::memcmp(got.floats().data, rows, bytes_of(got, count)), 0)
            << isa << " " << what << " " << first << " + " << count;
      };
      cut.store(stored, window.first - stored);
      stored = window.first;
      for (const int32_t count : window.pieces) {
        cut.store(stored, count);
        RowBuffer serial = cut.attend(stored, count, lanes);
        expect_same(serial, stored, count, "lanes in turn");
        lanes = lanes % 5 + 1;
        stored += count;
      }
      for (const int32_t position : {window.first, window.first + 15, stored - 1}) {
        RowBuffer one = cut.attend(position, 1, 8);
        expect_same(one, position, 1, "eight lanes");
        RowBuffer parallel = cut.attend_with(*pool, position, 1);
        expect_same(parallel, position, 1, "a pool");
      }
    }
    ASSERT_EQ(stored, kLong);
  }
}

TEST_P(AttentionCases, WriteEveryFormat) {
  for (const std::string_view isa : available_isas()) {
    Sequence sequence(isa, GetParam(), 40);
    sequence.store(0, 40);
    RowBuffer plain = sequence.attend(30, 10, 1);
    const int64_t columns = sequence.columns();
    const int64_t head_columns = int64_t{GetParam().head_dim} * GetParam().group;
    const auto row_bytes = static_cast<size_t>(activation_row_bytes(columns));
    for (const ActivationFormat format :
         {ActivationFormat{ActivationType::kBF16, 32}, ActivationFormat{ActivationType::kInt8, 32},
          ActivationFormat{ActivationType::kInt8, 128}}) {
      const bool bf16 = format.type == ActivationType::kBF16;
      if (bf16 ? isa != "avx512_bf16" : head_columns % format.group != 0) continue;
      const PanelKernels& panels = bf16 ? avx512_bf16_panel_kernels() : scalar_panel_kernels();
      std::vector<std::byte> got(10 * row_bytes);
      sequence.attend_into({got.data(), columns, format}, 30, 10);
      std::vector<std::byte> want(10 * row_bytes);
      const Activations rows{want.data(), columns, format};
      for (int64_t i = 0; i < 10; ++i)
        store_activations(panels, plain.floats().row(i), i, 0, columns, rows);
      EXPECT_EQ(got, want) << isa;
    }
  }
}

std::vector<Case> cases() {
  std::vector<Case> result;
  for (const KvType type : {KvType::kF32, KvType::kBF16, KvType::kInt8}) {
    for (const int32_t head_dim : {8, 16, 64, 80, 96, 128, 256})
      result.push_back({type, head_dim, 3});
    for (const int32_t group : {1, 4, 8, 64}) result.push_back({type, 64, group});
  }
  return result;
}

INSTANTIATE_TEST_SUITE_P(All, AttentionCases, testing::ValuesIn(cases()),
                         [](const auto& made) { return name_of(made.param); });

}  // namespace
}  // namespace puna::kernels
