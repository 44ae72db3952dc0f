// SPDX-License-Identifier: Apache-2.0
// Products against their formula in double, and the bits of a row for every number of rows.
#include "kernels/cuda/gemm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

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
