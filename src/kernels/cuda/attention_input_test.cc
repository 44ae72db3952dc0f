// SPDX-License-Identifier: Apache-2.0
// Attention whose input is made by a kernel that still runs; in decode, rows as the projection
// gives them: their bits are those of rotate_and_store() and then decode.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/row_kernels.h"
#include "kernels/cuda/test_device.h"

namespace puna::kernels::cuda {
namespace {

const std::vector<int32_t> kPositions = {4400, 1299, 300, 256, 255, 63, 16, 15, 0};

// Sequences that are at kPositions, each with blocks of its own.
class Sequences {
 public:
  explicit Sequences(const AttentionShape& shape)
      : shape_(shape),
        rows_(static_cast<int32_t>(kPositions.size())),
        width_((shape.num_heads + 2 * shape.num_kv_heads) * shape.head_dim) {
    int32_t blocks = 0;
    for (const int32_t position : kPositions) {
      offsets_.push_back(blocks);
      blocks += position / kCellsPerBlock + 1;
    }
    table_.resize(static_cast<size_t>(blocks));
    std::iota(table_.begin(), table_.end(), 0);
    std::mt19937 random(5);
    std::shuffle(table_.begin(), table_.end(), random);
    kv_ = normal_halves(static_cast<size_t>(kv_cells(blocks, shape.num_kv_heads, 0, false)) *
                            kCellsPerBlock * static_cast<size_t>(shape.head_dim),
                        random);
    rotations_ = normal_floats(
        static_cast<size_t>(kPositions.front() + 1) * static_cast<size_t>(shape.head_dim), random);
  }

  struct Results {
    std::vector<Float16> out;
    std::vector<Float16> kv;
  };
  Results rotated_before(DecodeWay way) const { return run(way, true); }
  Results unrotated(DecodeWay way) const { return run(way, false); }

 private:
  std::vector<DecodeItem> items(DecodeWay way) const {
    std::vector<DecodeItem> result;
    for (int32_t row = 0; row < rows_; ++row) {
      const int32_t position = kPositions[static_cast<size_t>(row)];
      const int32_t chunks = way == DecodeWay::kWholeRows ? 1 : chunks_of_positions(position + 1);
      for (int32_t chunk = 0; chunk < chunks; ++chunk)
        result.push_back({row, position, offsets_[static_cast<size_t>(row)], chunk});
    }
    return result;
  }

  Results run(DecodeWay way, bool rotated) const {
    const auto of_items = items(way);
    const int32_t max_chunks = chunks_of_positions(kPositions.front() + 1);
    DeviceArray<DecodeItem> device_items(of_items);
    DeviceArray<int32_t> num_items(std::vector<int32_t>{static_cast<int32_t>(of_items.size())});
    DeviceArray<int32_t> positions(kPositions);
    DeviceArray<int32_t> table(table_);
    DeviceArray<float> rotations(rotations_);
    DeviceArray<Float16> kv(kv_);
    DeviceArray<float> partials(static_cast<size_t>(partial_floats(shape_, rows_, max_chunks)));
    const auto query_size = static_cast<size_t>(rows_ * shape_.num_heads * shape_.head_dim);
    DeviceArray<Float16> queries(query_size);
    DeviceArray<Float16> out(query_size);
    DeviceArray<Float16> qkv(static_cast<size_t>(rows_ * width_));
    SlowRows maker(rows_, width_);
    prepare_attention();
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    maker.make(qkv.data());
    UnrotatedRows unrotated;
    if (rotated) {
      EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
      rotate(qkv.data(), positions.data(), rotations.data(), queries.data(), kv.data());
    } else {
      unrotated = {.qkv = qkv.data(), .rotations = rotations.data(), .kv = kv.data()};
    }
    attention_decode({.shape = shape_,
                      .queries = queries.data(),
                      .kv = kv.data(),
                      .block_tables = table.data(),
                      .out = out.data(),
                      .scale = 1.0F / std::sqrt(static_cast<float>(shape_.head_dim))},
                     unrotated,
                     {device_items.data(), num_items.data(), positions.data(), rows_, way},
                     {partials.data(), max_chunks}, 40, nullptr);
    return {out.values(), kv.values()};
  }

  void rotate(const Float16* qkv, const int32_t* positions, const float* rotations,
              Float16* queries, Float16* kv) const {
    std::vector<int32_t> cells;
    for (size_t row = 0; row < kPositions.size(); ++row) {
      const int32_t block = kPositions[row] / kCellsPerBlock;
      cells.push_back(table_[static_cast<size_t>(offsets_[row] + block)] * kCellsPerBlock +
                      kPositions[row] % kCellsPerBlock);
    }
    DeviceArray<int32_t> device_cells(cells);
    rotate_and_store({.qkv = qkv,
                      .positions = positions,
                      .cells = device_cells.data(),
                      .rotations = rotations,
                      .queries = queries,
                      .kv = kv,
                      .rows = rows_,
                      .num_heads = shape_.num_heads,
                      .num_kv_heads = shape_.num_kv_heads,
                      .head_dim = shape_.head_dim},
                     nullptr);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  }

  const AttentionShape shape_;
  const int32_t rows_;
  const int32_t width_;  // of a row of queries, keys and values
  std::vector<int32_t> offsets_;
  std::vector<int32_t> table_;
  std::vector<Float16> kv_;
  std::vector<float> rotations_;
};

TEST(CudaAttention, UnrotatedRowsHaveTheBitsOfRotatedOnes) {
  for (const AttentionShape& shape : {AttentionShape{32, 8, 128}, AttentionShape{9, 3, 64},
                                      AttentionShape{16, 1, 128}, AttentionShape{4, 2, 16}}) {
    const Sequences sequences(shape);
    for (const DecodeWay way : {DecodeWay::kChunks, DecodeWay::kFewChunks, DecodeWay::kWholeRows}) {
      SCOPED_TRACE(testing::Message() << shape.num_heads << "/" << shape.num_kv_heads << " x "
                                      << shape.head_dim << ", way " << static_cast<int>(way));
      const auto before = sequences.rotated_before(way);
      const auto within = sequences.unrotated(way);
      EXPECT_TRUE(same_bits(before.out.data(), within.out.data(), before.out.size()));
      EXPECT_TRUE(same_bits(before.kv.data(), within.kv.data(), before.kv.size()));
      for (const Float16 value : within.out) ASSERT_TRUE(std::isfinite(to_float(value)));
    }
  }
}

TEST(CudaAttention, PrefillWaitsForItsQueries) {
  constexpr AttentionShape kShape = {32, 8, 128};
  constexpr int32_t kRows = 64;
  constexpr int32_t kWidth = kShape.num_heads * kShape.head_dim;
  constexpr int32_t kBlocks = kRows / kCellsPerBlock;
  std::mt19937 random(6);
  DeviceArray<Float16> kv(
      normal_halves(static_cast<size_t>(kv_cells(kBlocks, kShape.num_kv_heads, 0, false)) *
                        kCellsPerBlock * kShape.head_dim,
                    random));
  DeviceArray<int32_t> table(std::vector<int32_t>{2, 0, 3, 1});
  std::vector<QueryTile> tiles;
  for (int32_t row = 0; row < kRows; row += prefill_tile_rows(kShape))
    tiles.push_back({row, std::min(prefill_tile_rows(kShape), kRows - row), row, 0});
  DeviceArray<QueryTile> device_tiles(tiles);
  DeviceArray<Float16> queries(size_t{kRows} * kWidth);
  DeviceArray<Float16> out(size_t{kRows} * kWidth);
  prepare_attention();
  expect_it_waits_for(queries, kRows, kWidth, [&] {
    attention_prefill({.shape = kShape,
                       .queries = queries.data(),
                       .kv = kv.data(),
                       .block_tables = table.data(),
                       .out = out.data(),
                       .scale = 0.1F},
                      device_tiles.data(), static_cast<int32_t>(tiles.size()), nullptr);
    return out.values();
  });
}

}  // namespace
}  // namespace puna::kernels::cuda
