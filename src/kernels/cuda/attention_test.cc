// SPDX-License-Identifier: Apache-2.0
// Attention against its formula in double over the same f16 values, and its bits against itself:
// decode, prefill, other tiles and other blocks give the same.
#include "kernels/cuda/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/cuda/test_device.h"

namespace puna::kernels::cuda {
namespace {

constexpr DecodeWay kWays[] = {DecodeWay::kChunks, DecodeWay::kFewChunks, DecodeWay::kWholeRows};

// A sequence with its keys and values in shuffled blocks; everything that is not its own is NaN.
class Case {
 public:
  Case(const AttentionShape& shape, int32_t positions, uint32_t seed)
      : shape_(shape), positions_(positions), dim_(static_cast<size_t>(shape.head_dim)) {
    std::mt19937 random(seed);
    const auto p = static_cast<size_t>(positions);
    queries_ = normal_halves(p * heads() * dim_, random, 2.0F);
    keys_ = normal_halves(p * kv_heads() * dim_, random);
    values_ = normal_halves(p * kv_heads() * dim_, random);
  }

  std::vector<Float16> prefill(int32_t first, int32_t count, int32_t tile_rows, uint32_t shuffle) {
    std::vector<QueryTile> tiles;
    for (int32_t done = 0; done < count; done += tile_rows)
      tiles.push_back({done, std::min(tile_rows, count - done), first + done, 1});
    DeviceArray<QueryTile> device_tiles(tiles);
    return run(first, count, shuffle, [&](const AttentionArgs& args) {
      attention_prefill(args, device_tiles.data(), static_cast<int32_t>(tiles.size()), nullptr);
    });
  }

  // Each of the positions as a decode row of its own, twice, so that nothing may be left behind; a
  // row more than there are. By chunks of rows or by rows, longest first.
  std::vector<Float16> decode(int32_t first, int32_t count, int32_t blocks, uint32_t shuffle,
                              DecodeWay way) {
    std::vector<DecodeItem> items;
    std::vector<int32_t> positions(static_cast<size_t>(count) + 1, 0);
    for (int32_t row = 0; row < count; ++row) {
      positions[static_cast<size_t>(row)] = first + row;
      if (way == DecodeWay::kWholeRows) {
        items.insert(items.begin(), {row, first + row, 1, 0});
        continue;
      }
      for (int32_t chunk = 0; chunk < chunks_of_positions(first + row + 1); ++chunk)
        items.push_back({row, first + row, 1, chunk});
    }
    const int32_t max_chunks = chunks_of_positions(positions_);
    DeviceArray<DecodeItem> device_items(items);
    DeviceArray<int32_t> num_items(std::vector<int32_t>{static_cast<int32_t>(items.size())});
    DeviceArray<float> partials(static_cast<size_t>(partial_floats(shape_, count, max_chunks)));
    DeviceArray<int32_t> device_positions(positions);
    const DecodeRows rows = {device_items.data(), num_items.data(), device_positions.data(),
                             count + 1, way};
    const DecodeScratch scratch = {partials.data(), max_chunks};
    return run(first, count, shuffle, [&](const AttentionArgs& args) {
      for (int i = 0; i < 2; ++i) attention_decode(args, {}, rows, scratch, blocks, nullptr);
    });
  }

  void expect_right(const std::vector<Float16>& got, int32_t first, int32_t count) const {
    double error = 0;
    double norm = 0;
    for (int32_t row = 0; row < count; ++row) {
      for (size_t head = 0; head < heads(); ++head) {
        const std::vector<double> expected = reference(first + row, head);
        for (size_t c = 0; c < dim_; ++c) {
          const double value =
              as_double(got[(static_cast<size_t>(row) * heads() + head) * dim_ + c]);
          error += (value - expected[c]) * (value - expected[c]);
          norm += expected[c] * expected[c];
          ASSERT_NEAR(value, expected[c], 0.004) << "row " << row << " head " << head;
        }
      }
    }
    EXPECT_LT(std::sqrt(error / norm), 7e-4);  // f16 probabilities and results
  }

 private:
  size_t heads() const { return static_cast<size_t>(shape_.num_heads); }
  size_t kv_heads() const { return static_cast<size_t>(shape_.num_kv_heads); }

  std::vector<double> reference(int32_t position, size_t head) const {
    const size_t kv_head = head / (heads() / kv_heads());
    std::vector<double> scores;
    for (size_t key = 0; key <= static_cast<size_t>(position); ++key) {
      double score = 0;
      for (size_t c = 0; c < dim_; ++c) {
        score += as_double(queries_[(static_cast<size_t>(position) * heads() + head) * dim_ + c]) *
                 as_double(keys_[(key * kv_heads() + kv_head) * dim_ + c]);
      }
      scores.push_back(score / std::sqrt(static_cast<double>(dim_)));
    }
    const double best = *std::max_element(scores.begin(), scores.end());
    double total = 0;
    std::vector<double> out(dim_, 0.0);
    for (size_t key = 0; key < scores.size(); ++key) {
      const double weight = std::exp(scores[key] - best);
      total += weight;
      for (size_t c = 0; c < dim_; ++c)
        out[c] += weight * as_double(values_[(key * kv_heads() + kv_head) * dim_ + c]);
    }
    for (double& value : out) value /= total;
    return out;
  }

  template <typename Attend>
  std::vector<Float16> run(int32_t first, int32_t count, uint32_t shuffle, Attend attend) {
    const auto blocks = static_cast<size_t>((positions_ + kCellsPerBlock - 1) / kCellsPerBlock);
    std::vector<int32_t> table(blocks);
    std::iota(table.begin(), table.end(), 1);
    std::mt19937 random(shuffle);
    std::shuffle(table.begin(), table.end(), random);
    constexpr size_t kCells = kCellsPerBlock;
    std::vector<Float16> kv((blocks + 2) * 2 * kv_heads() * kCells * dim_, Float16{0x7FC0});
    const auto end = static_cast<size_t>(first + count);
    for (size_t position = 0; position < end; ++position) {
      const auto block = static_cast<size_t>(table[position / kCells]);
      for (size_t head = 0; head < kv_heads(); ++head) {
        for (size_t c = 0; c < dim_; ++c) {
          const auto at = [&](size_t which) {
            const int64_t cells = kv_cells(static_cast<int32_t>(block), shape_.num_kv_heads,
                                           static_cast<int32_t>(head), which == 1);
            return static_cast<size_t>(cells) * kCells * dim_ +
                   placed_column(position % kCells, c, dim_);
          };
          kv[at(0)] = keys_[(position * kv_heads() + head) * dim_ + c];
          kv[at(1)] = values_[(position * kv_heads() + head) * dim_ + c];
        }
      }
    }
    table.insert(table.begin(), -7);  // tables start at an offset
    const size_t row = heads() * dim_;
    DeviceArray<Float16> device_kv(kv);
    DeviceArray<int32_t> device_table(table);
    DeviceArray<Float16> queries(std::vector<Float16>(
        queries_.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(first) * row),
        queries_.begin() + static_cast<std::ptrdiff_t>(end * row)));
    DeviceArray<Float16> out(static_cast<size_t>(count) * row);
    prepare_attention();
    attend({.shape = shape_,
            .queries = queries.data(),
            .kv = device_kv.data(),
            .block_tables = device_table.data(),
            .out = out.data(),
            .scale = 1.0F / std::sqrt(static_cast<float>(dim_))});
    return out.values();
  }

  const AttentionShape shape_;
  const int32_t positions_;
  const size_t dim_;
  std::vector<Float16> queries_;
  std::vector<Float16> keys_;
  std::vector<Float16> values_;
};

const AttentionShape kShapes[] = {{32, 8, 128}, {9, 3, 64},   {4, 2, 16}, {8, 8, 32},
                                  {7, 1, 64},   {16, 1, 128}, {3, 3, 128}};

TEST(CudaAttention, PrefillMatchesItsFormula) {
  for (const AttentionShape& shape : kShapes) {
    SCOPED_TRACE(testing::Message()
                 << shape.num_heads << "/" << shape.num_kv_heads << " x " << shape.head_dim);
    for (const int32_t length : {1, 17, 64, 65, 300, 1030}) {
      Case test(shape, length, static_cast<uint32_t>(length));
      const int32_t first = length > 600 ? length - 70 : 0;  // later rows see the most
      test.expect_right(test.prefill(first, length - first, prefill_tile_rows(shape), 1), first,
                        length - first);
    }
  }
}

TEST(CudaAttention, DecodeMatchesItsFormulaAndHasPrefillsBits) {
  for (const AttentionShape& shape : kShapes) {
    SCOPED_TRACE(testing::Message()
                 << shape.num_heads << "/" << shape.num_kv_heads << " x " << shape.head_dim);
    for (const int32_t length : {1, 63, 64, 65, 256, 257, 700, 1300}) {
      Case test(shape, length, static_cast<uint32_t>(length) + 9);
      const int32_t first = std::max(0, length - 40);
      const auto prefilled = test.prefill(first, length - first, prefill_tile_rows(shape), 3);
      for (const DecodeWay way : kWays) {
        const auto decoded = test.decode(first, length - first, 7, 2, way);
        test.expect_right(decoded, first, length - first);
        EXPECT_TRUE(same_bits(decoded.data(), prefilled.data(), decoded.size()))
            << length << ", way " << static_cast<int>(way);
      }
    }
  }
}

// Each path once and little of it, so that compute-sanitizer ends: chunks that are merged, a ring
// that is full, several tiles of rows, thread blocks with more than one item.
TEST(CudaAttention, ASmallCaseHasTheSameBits) {
  for (const AttentionShape& shape : {AttentionShape{4, 1, 128}, AttentionShape{9, 3, 64}}) {
    Case test(shape, 300, 21);
    const auto prefilled = test.prefill(250, 12, 8, 3);
    for (const DecodeWay way : kWays) {
      const auto decoded = test.decode(250, 12, 3, 2, way);
      EXPECT_TRUE(same_bits(decoded.data(), prefilled.data(), decoded.size()));
      test.expect_right(decoded, 250, 12);
    }
  }
}

TEST(CudaAttention, BitsDependOnTheRowAlone) {
  const AttentionShape shape = {32, 8, 128};
  const int32_t length = 900;
  Case test(shape, length, 5);
  const auto whole = test.prefill(0, length, prefill_tile_rows(shape), 1);
  const size_t row = 32 * 128;
  for (const int32_t tile_rows : {1, 7, 32}) {
    const auto tiled = test.prefill(0, length, tile_rows, 8);
    EXPECT_TRUE(same_bits(whole.data(), tiled.data(), whole.size())) << tile_rows;
  }
  for (const int32_t first : {250, 511, 830}) {
    const auto part = test.prefill(first, 60, 32, 4);
    EXPECT_TRUE(same_bits(whole.data() + static_cast<size_t>(first) * row, part.data(), 60 * row));
  }
  for (const DecodeWay way : kWays) {
    for (const int32_t blocks : {1, 3, 132, 264}) {
      const auto decoded = test.decode(860, 40, blocks, 6, way);
      EXPECT_TRUE(same_bits(decoded.data(), whole.data() + 860 * row, decoded.size()))
          << blocks << " blocks, way " << static_cast<int>(way);
    }
  }
}

// Rows too few for thread blocks of several warps, with more chunks than are merged at once.
TEST(CudaAttention, FewRowsHaveTheSameBits) {
  for (const AttentionShape& shape : {AttentionShape{32, 8, 128}, AttentionShape{4, 1, 64}}) {
    const int32_t length = shape.num_heads > 8 ? 1300 : 4700;
    Case test(shape, length, 13);
    const auto prefilled = test.prefill(length - 3, 3, prefill_tile_rows(shape), 1);
    for (const DecodeWay way : kWays) {
      const auto decoded = test.decode(length - 3, 3, 132, 6, way);
      test.expect_right(decoded, length - 3, 3);
      EXPECT_TRUE(same_bits(decoded.data(), prefilled.data(), decoded.size()))
          << length << ", way " << static_cast<int>(way);
    }
  }
}

TEST(CudaAttention, RefusesHeadsThatItHasNoKernelFor) {
  EXPECT_TRUE(attention_supports({32, 8, 128}));
  EXPECT_FALSE(attention_supports({32, 8, 80}));
  EXPECT_FALSE(attention_supports({34, 2, 64}));
}

}  // namespace
}  // namespace puna::kernels::cuda
