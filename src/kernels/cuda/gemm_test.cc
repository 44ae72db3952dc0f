// SPDX-License-Identifier: Apache-2.0
// Products against their formula in double, and the bits of a row for every number of rows.
#include "kernels/cuda/gemm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/cuda/gated_product.h"
#include "kernels/cuda/gemm_few_rows.h"
#include "kernels/cuda/gemm_swiglu.h"
#include "kernels/cuda/row_kernels.h"
#include "kernels/cuda/test_device.h"

namespace puna::kernels::cuda {
namespace {

struct Product {
  GemmShape shape;
  int32_t max_rows;
};

class ProductTest : public testing::TestWithParam<Product> {};

TEST_P(ProductTest, IsRightAndARowHasTheSameBitsForEveryNumberOfRows) {
  GemmShape shape = GetParam().shape;
  const int32_t max_rows = GetParam().max_rows;
  const auto padded = static_cast<size_t>(padded_rows(max_rows));
  const auto columns = static_cast<size_t>(shape.columns);
  const auto outputs = static_cast<size_t>(shape.outputs);
  const size_t element = shape.f32_out ? 4 : 2;
  shape.pieces = shape.f32_out ? gemm_pieces(shape.outputs, shape.columns) : 1;
  shape.piece_stride = static_cast<int64_t>(padded * outputs);
  const auto pieces = static_cast<size_t>(shape.pieces);
  DeviceArray<Float16> weight(outputs * columns);
  DeviceArray<Float16> x(padded * columns);
  DeviceArray<std::byte> out(pieces * padded * outputs * element);
  cudaStream_t stream = nullptr;
  ASSERT_EQ(cudaStreamCreate(&stream), cudaSuccess);
  fill_random(weight.data(), static_cast<int64_t>(outputs * columns), 1, 0.02F,
              RandomValues::kOfFloat16, stream);
  fill_random(x.data(), static_cast<int64_t>(padded * columns), 2, 1.0F, RandomValues::kOfFloat16,
              stream);
  auto library = GemmLibrary::open();
  ASSERT_TRUE(library.ok()) << library.error().message();
  const Float16* weights[] = {weight.data()};
  auto gemm = (*library)->prepare(
      shape, max_rows, {.weights = weights, .x = x.data(), .out = out.data(), .stream = stream});
  ASSERT_TRUE(gemm.ok()) << gemm.error().message();

  const auto run = [&](int32_t rows) {
    EXPECT_EQ(cudaMemset(out.data(), 0xFF, pieces * padded * outputs * element), cudaSuccess);
    (*gemm)->run(x.data(), weight.data(), out.data(), rows, stream);
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    return out.values();
  };
  const auto whole = run(max_rows);
  const size_t piece_bytes = padded * outputs * element;
  for (const int32_t rows : {1, 2, 7, 8, 16, 17, 33, 64, 100, 129, 256, 257, 500, 1100}) {
    if (rows > max_rows) break;
    const auto some = run(rows);
    for (size_t piece = 0; piece < pieces; ++piece) {
      EXPECT_TRUE(same_bits(whole.data() + piece * piece_bytes, some.data() + piece * piece_bytes,
                            static_cast<size_t>(rows) * outputs * element))
          << rows << " rows, piece " << piece;
    }
  }
  const auto w = weight.values();
  const auto in = x.values();
  std::mt19937 random(3);
  for (int sample = 0; sample < 200; ++sample) {
    const size_t row = random() % static_cast<size_t>(max_rows);
    const size_t output = random() % outputs;
    double expected = 0;
    for (size_t c = 0; c < columns; ++c)
      expected += as_double(in[row * columns + c]) * as_double(w[output * columns + c]);
    double got = 0;
    for (size_t piece = 0; piece < pieces; ++piece) {
      const std::byte* at = whole.data() + piece * piece_bytes + (row * outputs + output) * element;
      float value = 0.0F;
      Float16 half;
      std::memcpy(&half, at, 2);
      if (shape.f32_out) std::memcpy(&value, at, 4);
      got += shape.f32_out ? static_cast<double>(value) : as_double(half);
    }
    EXPECT_NEAR(got, expected, shape.f32_out ? 1e-3 : 1e-3 + std::abs(expected) / 1024);
  }
  (void)cudaStreamDestroy(stream);
}

INSTANTIATE_TEST_SUITE_P(
    Llama3Of8B, ProductTest,
    testing::Values(Product{{.outputs = 6144, .columns = 4096}, 1100},
                    Product{{.outputs = 4096, .columns = 4096, .f32_out = true}, 1100},
                    Product{{.outputs = 28672, .columns = 4096}, 512},
                    Product{{.outputs = 4096, .columns = 14336, .f32_out = true}, 1100},
                    Product{{.outputs = 128256, .columns = 4096, .f32_out = true}, 256}));
INSTANTIATE_TEST_SUITE_P(
    Small, ProductTest,
    testing::Values(Product{{.outputs = 128, .columns = 64}, 300},
                    Product{{.outputs = 64, .columns = 128, .f32_out = true}, 300},
                    Product{{.outputs = 960, .columns = 576}, 300},
                    Product{{.outputs = 576, .columns = 1536, .f32_out = true}, 300},
                    Product{{.outputs = 49152, .columns = 576, .f32_out = true}, 64}));

// silu(x * gate^T) * (x * up^T): against its formula, and its bits whatever the number of rows.
struct Gated {
  int64_t inner;
  int64_t columns;
  int32_t max_rows;
};
class GatedTest : public testing::TestWithParam<Gated> {};

TEST_P(GatedTest, IsTheFormulaWithTheSameBitsForEveryNumberOfRows) {
  const auto [inner, columns, max_rows] = GetParam();
  const auto padded = static_cast<size_t>(padded_rows(max_rows));
  const auto k = static_cast<size_t>(columns);
  const auto width = static_cast<size_t>(inner);
  DeviceArray<Float16> weight(2 * width * k);
  DeviceArray<Float16> x(padded * k);
  DeviceArray<Float16> between(padded * 2 * width);
  DeviceArray<Float16> out(padded * width);
  cudaStream_t stream = nullptr;
  ASSERT_EQ(cudaStreamCreate(&stream), cudaSuccess);
  fill_random(weight.data(), 2 * inner * columns, 1, 0.03F, RandomValues::kOfFloat16, stream);
  fill_random(x.data(), static_cast<int64_t>(padded * k), 2, 1.0F, RandomValues::kOfFloat16,
              stream);
  auto library = GemmLibrary::open();
  ASSERT_TRUE(library.ok()) << library.error().message();
  const Float16* weights[] = {weight.data()};
  auto product = GatedProduct::prepare(
      **library, inner, columns, max_rows,
      {.x = x.data(), .between = between.data(), .activated = out.data()}, weights, stream);
  ASSERT_TRUE(product.ok()) << product.error().message();
  std::printf("%s\n", (*product)->summary().c_str());

  const auto run = [&](int32_t rows) {
    EXPECT_EQ(cudaMemset(out.data(), 0xFF, padded * width * sizeof(Float16)), cudaSuccess);
    (*product)->run(weight.data(), rows, stream);
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    return out.values();
  };
  const auto whole = run(max_rows);
  for (const int32_t rows : {1, 16, 100, 256, 257, 384, 500, 640, 900, 1025, 1300, 2047, 3000}) {
    if (rows > max_rows) break;
    const auto some = run(rows);
    EXPECT_TRUE(same_bits(whole.data(), some.data(), static_cast<size_t>(rows) * width))
        << rows << " rows, by one kernel: " << (*product)->fused(rows) << " and for all "
        << (*product)->fused(max_rows);
  }
  const auto w = weight.values();
  const auto in = x.values();
  std::mt19937 random(3);
  for (int sample = 0; sample < 200; ++sample) {
    const size_t row = random() % static_cast<size_t>(max_rows);
    const size_t output = random() % width;
    double gate = 0;
    double up = 0;
    for (size_t c = 0; c < k; ++c) {
      gate += as_double(in[row * k + c]) * as_double(w[output * k + c]);
      up += as_double(in[row * k + c]) * as_double(w[(width + output) * k + c]);
    }
    const double expected = gate / (1 + std::exp(-gate)) * up;
    EXPECT_NEAR(as_double(whole[row * width + output]), expected, 2e-3 + std::abs(expected) / 500);
  }
  (void)cudaStreamDestroy(stream);
}

INSTANTIATE_TEST_SUITE_P(Shapes, GatedTest,
                         testing::Values(Gated{14336, 4096, 3100}, Gated{8192, 2048, 2048},
                                         Gated{1536, 576, 1500}, Gated{128, 64, 700},
                                         Gated{96, 64, 300}));

// The one kernel by itself, where the tuner might not take it.
TEST(CudaProducts, TheOneKernelHasTheBitsOfTheTwo) {
  struct Case {
    int64_t inner;
    int64_t columns;
    int32_t rows;
  };
  for (const auto& [inner, columns, rows] :
       {Case{128, 64, 1}, Case{128, 64, 300}, Case{384, 576, 257}, Case{1536, 576, 1000},
        Case{2432, 896, 2049}, Case{14336, 4096, 511}}) {
    if (!swiglu_gemm_supports(inner, columns)) GTEST_SKIP() << "not on this GPU";
    const auto padded = static_cast<size_t>(padded_rows(rows));
    DeviceArray<Float16> weight(static_cast<size_t>(2 * inner * columns));
    DeviceArray<Float16> x(padded * static_cast<size_t>(columns));
    DeviceArray<Float16> between(padded * static_cast<size_t>(2 * inner));
    DeviceArray<Float16> out(padded * static_cast<size_t>(inner));
    fill_random(weight.data(), 2 * inner * columns, 1, 0.03F, RandomValues::kOfFloat16, nullptr);
    fill_random(x.data(), static_cast<int64_t>(padded) * columns, 2, 1.0F, RandomValues::kOfFloat16,
                nullptr);
    auto library = GemmLibrary::open();
    ASSERT_TRUE(library.ok()) << library.error().message();
    const Float16* weights[] = {weight.data()};
    auto gemm = (*library)->prepare(
        {.outputs = 2 * inner, .columns = columns}, rows,
        {.weights = weights, .x = x.data(), .out = between.data(), .stream = nullptr});
    ASSERT_TRUE(gemm.ok()) << gemm.error().message();
    (*gemm)->run(x.data(), weight.data(), between.data(), rows, nullptr);
    swiglu(between.data(), out.data(), rows, static_cast<int32_t>(inner), nullptr);
    const auto two = out.values();
    EXPECT_EQ(cudaMemset(out.data(), 0xFF, padded * static_cast<size_t>(inner) * 2), cudaSuccess);
    swiglu_gemm(
        {x.data(), weight.data(), out.data(), rows, static_cast<int32_t>(padded), inner, columns},
        nullptr);
    const auto one = out.values();
    EXPECT_TRUE(same_bits(two.data(), one.data(), static_cast<size_t>(rows * inner)))
        << inner << " x " << columns << ", " << rows << " rows";
  }
}

TEST(CudaProducts, TheOneKernelWaitsForItsInput) {
  constexpr int32_t kRows = 256;
  constexpr int32_t kColumns = 4096;
  constexpr int32_t kInner = 512;
  if (!swiglu_gemm_supports(kInner, kColumns)) GTEST_SKIP() << "not on this GPU";
  DeviceArray<Float16> weight(size_t{2} * kInner * kColumns);
  DeviceArray<Float16> x(size_t{kRows} * kColumns);
  DeviceArray<Float16> out(size_t{kRows} * kInner);
  fill_random(weight.data(), int64_t{2} * kInner * kColumns, 1, 0.03F, RandomValues::kOfFloat16,
              nullptr);
  expect_it_waits_for(x, kRows, kColumns, [&] {
    swiglu_gemm({x.data(), weight.data(), out.data(), kRows, kRows, kInner, kColumns}, nullptr);
    return out.values();
  });
}

// The kernel for few rows by itself, against the library's product of many.
void expect_the_bits_of_many(const GemmShape& shape) {
  constexpr int32_t kMany = 256;
  const FewRowsShape few = {
      .outputs = shape.outputs,
      .columns = shape.columns,
      .pieces = shape.pieces,
      .result = shape.f32_out ? FewRowsResult::kFloat : FewRowsResult::kFloat16};
  if (!few_rows_gemm_supports(few)) GTEST_SKIP() << "not on this GPU";
  const auto columns = static_cast<size_t>(shape.columns);
  const auto outputs = static_cast<size_t>(shape.outputs);
  const size_t element = shape.f32_out ? 4 : 2;
  GemmShape many = shape;
  many.piece_stride = kMany * shape.outputs;
  const size_t piece_bytes = kMany * outputs * element;
  const auto pieces = static_cast<size_t>(shape.pieces);
  DeviceArray<Float16> weight(outputs * columns);
  DeviceArray<Float16> x(kMany * columns);
  DeviceArray<std::byte> out(pieces * piece_bytes);
  fill_random(weight.data(), shape.outputs * shape.columns, 1, 0.03F, RandomValues::kOfFloat16,
              nullptr);
  fill_random(x.data(), kMany * shape.columns, 2, 1.0F, RandomValues::kOfFloat16, nullptr);
  auto library = GemmLibrary::open();
  ASSERT_TRUE(library.ok()) << library.error().message();
  const Float16* weights[] = {weight.data()};
  auto gemm = (*library)->prepare(
      many, kMany, {.weights = weights, .x = x.data(), .out = out.data(), .stream = nullptr});
  ASSERT_TRUE(gemm.ok()) << gemm.error().message();
  std::printf("%s\n", (*gemm)->summary().c_str());
  (*gemm)->run(x.data(), weight.data(), out.data(), kMany, nullptr);
  const auto wanted = out.values();
  for (const int32_t rows : {1, 2, 7, 8, 9, 16, 17, 31, 32, 33, 41, 48}) {
    EXPECT_EQ(cudaMemset(out.data(), 0xFF, pieces * piece_bytes), cudaSuccess);
    // Twice in a row, so that one reads ahead while the other runs.
    for (int i = 0; i < 2; ++i) {
      few_rows_gemm({few, x.data(), weight.data(), out.data(), rows, many.piece_stride}, nullptr);
    }
    const auto got = out.values();
    for (size_t piece = 0; piece < pieces; ++piece) {
      const std::byte* at = got.data() + piece * piece_bytes;
      const size_t bytes = static_cast<size_t>(rows) * outputs * element;
      EXPECT_TRUE(same_bits(wanted.data() + piece * piece_bytes, at, bytes))
          << shape.outputs << " x " << shape.columns << ", " << rows << " rows, piece " << piece;
      EXPECT_EQ(std::count(at + bytes, at + piece_bytes, std::byte{0xFF}),
                static_cast<std::ptrdiff_t>(piece_bytes - bytes))
          << "rows that there are not were written";
    }
  }
}

// Each number of rows and cut of the outputs.
TEST(CudaProducts, FewRowsHaveTheBitsOfMany) {
  for (const GemmShape shape :
       {GemmShape{.outputs = 6144, .columns = 4096},
        GemmShape{.outputs = 4096, .columns = 4096, .f32_out = true},
        GemmShape{.outputs = 4096, .columns = 14336, .pieces = 2, .f32_out = true},
        GemmShape{.outputs = 28672, .columns = 4096},
        GemmShape{.outputs = 128256, .columns = 4096, .f32_out = true},
        GemmShape{.outputs = 49160, .columns = 576, .f32_out = true}})
    expect_the_bits_of_many(shape);
}

TEST(CudaProducts, FewRowsOfSmallWeightsHaveTheBitsOfMany) {
  for (const GemmShape shape :
       {GemmShape{.outputs = 960, .columns = 576}, GemmShape{.outputs = 128, .columns = 64},
        GemmShape{.outputs = 24, .columns = 192, .f32_out = true},
        GemmShape{.outputs = 256, .columns = 2048, .pieces = 2, .f32_out = true}})
    expect_the_bits_of_many(shape);
}

// The kernel starts before its input is there.
TEST(CudaProducts, FewRowsWaitForTheirInput) {
  constexpr int32_t kRows = 48;
  constexpr int32_t kColumns = 4096;
  const FewRowsShape shape = {
      .outputs = kColumns, .columns = kColumns, .result = FewRowsResult::kFloat};
  if (!few_rows_gemm_supports(shape)) GTEST_SKIP() << "not on this GPU";
  DeviceArray<Float16> weight(size_t{kColumns} * kColumns);
  DeviceArray<Float16> x(size_t{kRows} * kColumns);
  DeviceArray<float> out(size_t{kRows} * kColumns);
  fill_random(weight.data(), int64_t{kColumns} * kColumns, 1, 0.03F, RandomValues::kOfFloat16,
              nullptr);
  expect_it_waits_for(x, kRows, kColumns, [&] {
    few_rows_gemm({shape, x.data(), weight.data(), out.data(), kRows, 0}, nullptr);
    return out.values();
  });
}

TEST(CudaProducts, FewRowsWithSwigluHaveTheBitsOfTheTwo) {
  struct Case {
    int64_t inner;
    int64_t columns;
    float deviation = 0.03F;  // of weights
  };
  constexpr int32_t kRoom = 64;
  // The last one's results are beyond what f16 has.
  for (const auto& [inner, columns, deviation] :
       {Case{14336, 4096}, Case{1536, 576}, Case{128, 64}, Case{24, 128}, Case{8192, 2048},
        Case{256, 4096, 8.0F}}) {
    const FewRowsShape few = {
        .outputs = 2 * inner, .columns = columns, .result = FewRowsResult::kSwiglu};
    if (!few_rows_gemm_supports(few)) GTEST_SKIP() << "not on this GPU";
    const auto width = static_cast<size_t>(inner);
    DeviceArray<Float16> weight(2 * width * static_cast<size_t>(columns));
    DeviceArray<Float16> x(kRoom * static_cast<size_t>(columns));
    DeviceArray<Float16> between(kRoom * 2 * width);
    DeviceArray<Float16> out(kRoom * width);
    fill_random(weight.data(), 2 * inner * columns, 1, deviation, RandomValues::kOfFloat16,
                nullptr);
    fill_random(x.data(), kRoom * columns, 2, 1.0F, RandomValues::kOfFloat16, nullptr);
    auto library = GemmLibrary::open();
    ASSERT_TRUE(library.ok()) << library.error().message();
    const Float16* weights[] = {weight.data()};
    auto gemm = (*library)->prepare(
        {.outputs = 2 * inner, .columns = columns}, kRoom,
        {.weights = weights, .x = x.data(), .out = between.data(), .stream = nullptr});
    ASSERT_TRUE(gemm.ok()) << gemm.error().message();
    (*gemm)->run(x.data(), weight.data(), between.data(), kRoom, nullptr);
    swiglu(between.data(), out.data(), kRoom, static_cast<int32_t>(inner), nullptr);
    const auto two = out.values();
    for (const int32_t rows : {1, 5, 8, 16, 30, 32, 48}) {
      EXPECT_EQ(cudaMemset(out.data(), 0xFF, kRoom * width * 2), cudaSuccess);
      few_rows_gemm({few, x.data(), weight.data(), out.data(), rows, 0}, nullptr);
      const auto one = out.values();
      EXPECT_TRUE(same_bits(two.data(), one.data(), static_cast<size_t>(rows) * width))
          << inner << " x " << columns << ", " << rows << " rows";
    }
  }
}

TEST(CudaProducts, RowCountsWithPlansRise) {
  int32_t before = 0;
  for (int32_t rows = 1; rows <= 9000; ++rows) {
    const int32_t padded = padded_rows(rows);
    EXPECT_GE(padded, rows);
    EXPECT_GE(padded, before);
    EXPECT_EQ(padded_rows(padded), padded);
    before = padded;
  }
  EXPECT_EQ(padded_rows(1), 1);
  EXPECT_EQ(padded_rows(257), 384);
}

}  // namespace
}  // namespace puna::kernels::cuda
