// SPDX-License-Identifier: Apache-2.0
// Every row kernel against its formula in double, on random shapes.
#include "kernels/cuda/row_kernels.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/cuda/test_device.h"

namespace puna::kernels::cuda {
namespace {

constexpr double kHalfUlp = 1.0 / 2048;  // of f16, relative

TEST(CudaRows, EmbedTakesTheRowOfTheTokenOrOfTheSlotsLastOne) {
  std::mt19937 random(1);
  const int32_t hidden = 72;
  const int32_t vocab = 50;
  const auto table = normal_halves(static_cast<size_t>(vocab * hidden), random);
  DeviceArray<Float16> device_table(table);
  DeviceArray<int32_t> tokens(std::vector<int32_t>{3, -1, 49, -1});
  DeviceArray<int32_t> slots(std::vector<int32_t>{0, 2, 1, 0});
  DeviceArray<int32_t> last(std::vector<int32_t>{11, 12, 13});
  DeviceArray<float> out(4 * static_cast<size_t>(hidden));
  embed({.tokens = tokens.data(),
         .slots = slots.data(),
         .last_tokens = last.data(),
         .table = device_table.data(),
         .out = out.data(),
         .rows = 4,
         .hidden = hidden},
        nullptr);
  const auto got = out.values();
  const size_t expected[] = {3, 13, 49, 11};
  for (size_t row = 0; row < 4; ++row) {
    for (size_t i = 0; i < static_cast<size_t>(hidden); ++i) {
      EXPECT_EQ(got[row * static_cast<size_t>(hidden) + i],
                to_float(table[expected[row] * static_cast<size_t>(hidden) + i]));
    }
  }
}

void expect_normed(int32_t hidden, int32_t parts, bool gather) {
  SCOPED_TRACE(testing::Message() << hidden << " columns, " << parts << " parts");
  std::mt19937 random(static_cast<uint32_t>(hidden + parts));
  const size_t rows = 5;
  const auto h = static_cast<size_t>(hidden);
  const size_t stride = (rows + 2) * h;
  const auto residual = normal_floats(rows * h, random, 3.0F);
  const auto pieces = normal_floats(stride * 2, random);
  const auto weight = normal_floats(h, random);
  const std::vector<int32_t> index = {4, 1};
  DeviceArray<float> device_residual(residual);
  DeviceArray<float> device_pieces(pieces);
  DeviceArray<float> device_weight(weight);
  DeviceArray<int32_t> device_index(index);
  const size_t out_rows = gather ? index.size() : rows;
  DeviceArray<Float16> out(out_rows * h);
  add_norm({.residual = device_residual.data(),
            .pieces = device_pieces.data(),
            .piece_stride = static_cast<int64_t>(stride),
            .parts = parts,
            .row_index = gather ? device_index.data() : nullptr,
            .weight = device_weight.data(),
            .eps = 1e-5F,
            .out = out.data(),
            .rows = static_cast<int32_t>(out_rows),
            .hidden = hidden},
           nullptr);
  const auto got = out.values();
  const auto after = device_residual.values();
  for (size_t i = 0; i < out_rows; ++i) {
    const size_t row = gather ? static_cast<size_t>(index[i]) : i;
    std::vector<float> sum(h);
    double squares = 0;
    for (size_t c = 0; c < h; ++c) {
      sum[c] = residual[row * h + c];
      for (size_t part = 0; part < static_cast<size_t>(parts); ++part)
        sum[c] += pieces[part * stride + row * h + c];
      squares += static_cast<double>(sum[c]) * static_cast<double>(sum[c]);
      EXPECT_EQ(after[row * h + c], gather ? residual[row * h + c] : sum[c]);
    }
    const double scale = 1 / std::sqrt(squares / static_cast<double>(h) + 1e-5);
    for (size_t c = 0; c < h; ++c) {
      const double expected = static_cast<double>(sum[c]) * scale * static_cast<double>(weight[c]);
      ASSERT_NEAR(as_double(got[i * h + c]), expected, std::abs(expected) * kHalfUlp + 1e-6);
    }
  }
}

TEST(CudaRows, AddNormSumsPiecesInOrderAndNorms) {
  for (const int32_t hidden : {8, 64, 576, 1024, 4096, 8192, kMaxHidden}) {
    for (const int32_t parts : {0, 1, 2}) expect_normed(hidden, parts, false);
    expect_normed(hidden, 2, true);
  }
}

TEST(CudaRows, GathersQueriesAndResidual) {
  std::mt19937 random(5);
  const int32_t q_size = 2064;  // more than a thread's turn, and no multiple of it
  const int32_t hidden = 1032;
  const std::vector<int32_t> index = {0, 3, 4, 9};
  const auto queries = normal_halves(size_t{10} * q_size, random);
  const auto residual = normal_floats(size_t{10} * hidden, random);
  DeviceArray<int32_t> device_index(index);
  DeviceArray<Float16> device_queries(queries);
  DeviceArray<float> device_residual(residual);
  DeviceArray<Float16> queries_out(index.size() * q_size);
  DeviceArray<float> residual_out(index.size() * hidden);
  gather_rows({.row_index = device_index.data(),
               .queries = device_queries.data(),
               .queries_out = queries_out.data(),
               .q_size = q_size,
               .residual = device_residual.data(),
               .residual_out = residual_out.data(),
               .hidden = hidden,
               .rows = static_cast<int32_t>(index.size())},
              nullptr);
  const auto got_queries = queries_out.values();
  const auto got_residual = residual_out.values();
  for (size_t i = 0; i < index.size(); ++i) {
    const auto row = static_cast<size_t>(index[i]);
    EXPECT_EQ(std::memcmp(&got_queries[i * q_size], &queries[row * q_size], q_size * 2), 0);
    EXPECT_EQ(std::memcmp(&got_residual[i * hidden], &residual[row * hidden], hidden * 4), 0);
  }
}

TEST(CudaRows, RotatesPairsAndStoresKeysAndValues) {
  std::mt19937 random(4);
  for (const int32_t dim : {16, 64, 128}) {
    const size_t d = static_cast<size_t>(dim);
    const int32_t heads = 6;
    const int32_t kv_heads = 2;
    const size_t rows = 3;
    const size_t width = static_cast<size_t>(heads + 2 * kv_heads) * d;
    const auto qkv = normal_halves(rows * width, random);
    const auto rotations = normal_floats(10 * d, random);
    const std::vector<int32_t> positions = {9, 0, 4};
    const std::vector<int32_t> cells = {2 * 16 + 5, -1, 7};
    DeviceArray<Float16> device_qkv(qkv);
    DeviceArray<float> device_rotations(rotations);
    DeviceArray<int32_t> device_positions(positions);
    DeviceArray<int32_t> device_cells(cells);
    DeviceArray<Float16> queries(rows * static_cast<size_t>(heads) * d);
    const size_t kv_size = 3 * 2 * static_cast<size_t>(kv_heads) * 16 * d;
    DeviceArray<Float16> kv(kv_size, 0);
    rotate_and_store({.qkv = device_qkv.data(),
                      .positions = device_positions.data(),
                      .cells = device_cells.data(),
                      .rotations = device_rotations.data(),
                      .queries = queries.data(),
                      .kv = kv.data(),
                      .rows = static_cast<int32_t>(rows),
                      .num_heads = heads,
                      .num_kv_heads = kv_heads,
                      .head_dim = dim},
                     nullptr);
    const auto got_q = queries.values();
    const auto got_kv = kv.values();
    size_t stored = 0;
    for (const Float16 value : got_kv) stored += value.bits != 0 ? 1 : 0;
    EXPECT_LE(stored, 2 * 2 * static_cast<size_t>(kv_heads) * d);  // nothing else was written
    for (size_t row = 0; row < rows; ++row) {
      for (size_t head = 0; head < static_cast<size_t>(heads + 2 * kv_heads); ++head) {
        for (size_t c = 0; c < d; ++c) {
          const auto in = [&](size_t column) {
            return as_double(qkv[row * width + head * d + column]);
          };
          const size_t at = static_cast<size_t>(positions[row]) * d + c / 2 * 2;
          const auto cosine = static_cast<double>(rotations[at]);
          const auto sine = static_cast<double>(rotations[at + 1]);
          double expected =
              c % 2 == 0 ? in(c)*cosine - in(c + 1) * sine : in(c - 1) * sine + in(c)*cosine;
          double got = 0;
          if (head < static_cast<size_t>(heads)) {
            got = as_double(got_q[(row * static_cast<size_t>(heads) + head) * d + c]);
          } else {
            if (cells[row] < 0) continue;
            const auto cell = static_cast<size_t>(cells[row]);
            const size_t kv_index = head - static_cast<size_t>(heads);
            if (kv_index >= static_cast<size_t>(kv_heads)) expected = in(c);
            const auto kv_head = static_cast<int32_t>(kv_index) % kv_heads;
            const int64_t of_head = kv_cells(static_cast<int32_t>(cell / 16), kv_heads, kv_head,
                                             kv_index >= static_cast<size_t>(kv_heads));
            got = as_double(
                got_kv[static_cast<size_t>(of_head) * 16 * d + placed_column(cell % 16, c, d)]);
          }
          ASSERT_NEAR(got, expected, std::abs(expected) * kHalfUlp + 1e-6);
        }
      }
    }
  }
}

TEST(CudaRows, SwigluIsSiluOfTheGateTimesUp) {
  std::mt19937 random(5);
  for (const size_t inner : {8U, 1536U, 14336U}) {
    const size_t rows = 3;
    const auto gate_up = normal_halves(rows * 2 * inner, random, 4.0F);
    DeviceArray<Float16> in(gate_up);
    DeviceArray<Float16> out(rows * inner);
    swiglu(in.data(), out.data(), static_cast<int32_t>(rows), static_cast<int32_t>(inner), nullptr);
    const auto got = out.values();
    for (size_t row = 0; row < rows; ++row) {
      for (size_t c = 0; c < inner; ++c) {
        const double gate = as_double(gate_up[row * 2 * inner + c]);
        const double up = as_double(gate_up[row * 2 * inner + inner + c]);
        const double expected = gate / (1 + std::exp(-gate)) * up;
        ASSERT_NEAR(as_double(got[row * inner + c]), expected,
                    std::abs(expected) * kHalfUlp * 1.001 + 1e-6);
      }
    }
  }
}

TEST(CudaRows, SwigluStaysFinite) {
  const float large = 300.0F;
  const std::vector<float> numbers = {large, large,  -large, 1.0F, 0, 0, 0, 0,
                                      large, -large, large,  2.0F, 0, 0, 0, 0};
  std::vector<Float16> gate_up;
  for (const float number : numbers) gate_up.push_back(to_float16(number));
  DeviceArray<Float16> in(gate_up);
  DeviceArray<Float16> out(numbers.size() / 2);
  swiglu(in.data(), out.data(), 1, 8, nullptr);
  const auto got = out.values();
  EXPECT_EQ(to_float(got[0]), 65504.0F);
  EXPECT_EQ(to_float(got[1]), -65504.0F);
  EXPECT_EQ(to_float(got[2]), 0.0F);
}

TEST(CudaRows, RandomFillHasTheDeviationAskedForAndRepeats) {
  DeviceArray<Float16> a(1 << 20);
  DeviceArray<Float16> b(1 << 20);
  fill_random(a.data(), 1 << 20, 3, 0.5F, RandomValues::kOfFloat16, nullptr);
  fill_random(b.data(), 1 << 20, 3, 0.5F, RandomValues::kOfFloat16, nullptr);
  const auto values = a.values();
  EXPECT_TRUE(same_bits(values.data(), b.values().data(), values.size()));
  double sum = 0;
  double squares = 0;
  for (const Float16 value : values) {
    sum += as_double(value);
    squares += as_double(value) * as_double(value);
  }
  EXPECT_NEAR(sum / (1 << 20), 0, 0.01);
  EXPECT_NEAR(std::sqrt(squares / (1 << 20)), 0.5, 0.01);
  fill_random(b.data(), 1 << 20, 3, 0.5F, RandomValues::kOfBFloat16, nullptr);
  const auto shorter = b.values();
  for (size_t i = 0; i < values.size(); ++i) {
    const float value = to_float(shorter[i]);
    ASSERT_EQ(to_float(to_bfloat16(value)), value);
    ASSERT_NEAR(value, to_float(values[i]), std::abs(value) / 256);
  }
}

TEST(CudaRows, WeightsInBFloat16BecomeFloat16) {
  const std::vector<float> numbers = {1.0F,     -1.0F,    3.140625F, 0x1.FEp-15F, 0x1.FEp-17F,
                                      0x1p-24F, 0x1p-26F, 65280.0F,  65536.0F,    -1e30F};
  std::vector<Float16> values;
  for (const float number : numbers) values.push_back({to_bfloat16(number).bits});
  DeviceArray<Float16> array(values);
  from_bfloat16(array.data(), static_cast<int64_t>(values.size()), nullptr);
  const auto got = array.values();
  for (size_t i = 0; i < numbers.size(); ++i) {
    const float number = to_float(to_bfloat16(numbers[i]));
    EXPECT_EQ(to_float(got[i]), to_float(to_float16(std::clamp(number, -65504.0F, 65504.0F))))
        << numbers[i];
  }
}

}  // namespace
}  // namespace puna::kernels::cuda
