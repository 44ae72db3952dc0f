// SPDX-License-Identifier: Apache-2.0
// Every op x type x shape x number of rows on every instruction set of this CPU against the
// reference, and the promise of design §7: a row's bits depend on nothing but the row.
#include "kernels/ops.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>
#include <string>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/isa.h"
#include "kernels/test_blocks.h"
#include "quant/dequant.h"

namespace puna::kernels {
namespace {

// Weights in place, decoded to f32: packed ones are panel_test's.
constexpr CpuOptions kFloat = {.activations = ActivationMode::kFloat};

std::vector<std::unique_ptr<Ops>> vectorised_ops() {
  std::vector<std::unique_ptr<Ops>> all;
  for (const std::string_view isa : available_isas()) {
    if (isa != "scalar") all.push_back(make_cpu_ops(isa, kFloat).value());
  }
  return all;
}

// Runs an op's lanes one after another: the ops of this test don't sync.
template <typename Op>
void run(int32_t lanes, Op op) {
  for (int32_t i = 0; i < lanes; ++i) {
    Lane lane(i, lanes);
    op(lane);
  }
}

bool same_bits(const float* a, const float* b, int64_t count) {
  return std::memcmp(a, b, static_cast<size_t>(count) * sizeof(float)) == 0;
}

std::string type_text(formats::TensorType type) {
  return std::string(formats::tensor_type_name(type));
}

float norm(const float* values, int64_t count) {
  double sum = 0.0;
  for (int64_t i = 0; i < count; ++i) sum += static_cast<double>(values[i] * values[i]);
  return static_cast<float>(std::sqrt(sum));
}

// Lengths of the rows of a matrix, for error bounds.
std::vector<float> row_norms(const MatrixPart& part) {
  std::vector<float> row(static_cast<size_t>(part.columns));
  std::vector<float> norms;
  const size_t row_bytes = part.data.size() / static_cast<size_t>(part.rows);
  for (int64_t i = 0; i < part.rows; ++i) {
    quant::dequantize(part.type, part.data.subspan(static_cast<size_t>(i) * row_bytes, row_bytes),
                      row);
    norms.push_back(norm(row.data(), part.columns));
  }
  return norms;
}

// A float sum of products is off by a few units of the last place of |x| |w| (Cauchy-Schwarz bounds
// the sum of magnitudes; errors of the lanes' partial sums mostly cancel).
constexpr float kDotTolerance = 5e-7F;

std::vector<int64_t> depths_of(formats::TensorType type) {
  const int64_t block = formats::tensor_type_info(type).block_elements;
  if (block == 1) return {1, 36, 1024, 1060};
  if (block == 32) return {32, 576, 1056};
  return {256, 2304};
}

class MatmulTypes : public testing::TestWithParam<formats::TensorType> {};

// Two matrices of one shape and what the reference makes of them.
struct MatmulCase {
  MatmulCase(formats::TensorType type, int64_t depth_, int64_t columns_, int32_t rows_)
      : depth(depth_),
        columns(columns_),
        rows(rows_),
        first(type, columns, depth, 1),
        second(type, columns, depth, 2),
        x(RowBuffer::random(rows, depth, 3)),
        gate(rows, columns),
        up(rows, columns),
        swiglu(rows, columns) {
    const auto reference = make_cpu_ops("scalar", kFloat).value();
    const MatrixPart parts[] = {first.part(), second.part()};
    Lane lane;
    reference->matmul(lane, x.activations(), rows,
                      *reference->pack({parts, 1}, {.head_dim = 2}).value(), gate.floats());
    reference->matmul(lane, x.activations(), rows,
                      *reference->pack({parts + 1, 1}, {.head_dim = 2}).value(), up.floats());
    reference->matmul_swiglu(lane, x.activations(), rows,
                             *reference->pack(parts, {.head_dim = 2}).value(),
                             swiglu.activations());
  }

  int64_t depth;
  int64_t columns;
  int32_t rows;
  RandomWeights first;
  RandomWeights second;
  RowBuffer x;
  RowBuffer gate;  // x * first
  RowBuffer up;    // x * second
  RowBuffer swiglu;
};

void expect_equal(const Ops& ops, MatmulCase& want) {
  const MatrixPart parts[] = {want.first.part(), want.second.part()};
  const auto one = ops.pack({parts, 1}, {.head_dim = 2}).value();
  const auto two = ops.pack(parts, {.head_dim = 2}).value();
  RowBuffer product(want.rows, want.columns);
  RowBuffer sum = RowBuffer::random(want.rows, want.columns, 4);
  RowBuffer before = sum;
  RowBuffer swiglu(want.rows, want.columns);
  run(3, [&](Lane& lane) {
    ops.matmul(lane, want.x.activations(), want.rows, *one, product.floats());
    ops.matmul_add(lane, want.x.activations(), want.rows, *one, sum.floats());
    ops.matmul_swiglu(lane, want.x.activations(), want.rows, *two, swiglu.activations());
  });
  const std::vector<float> first_norms = row_norms(parts[0]);
  const std::vector<float> second_norms = row_norms(parts[1]);
  for (int64_t i = 0; i < want.rows; ++i) {
    const float length = norm(want.x.floats().row(i), want.depth);
    for (int64_t j = 0; j < want.columns; ++j) {
      const float got = product.floats().row(i)[j];
      const float gate = want.gate.floats().row(i)[j];
      const float up = want.up.floats().row(i)[j];
      const float gate_error = kDotTolerance * length * first_norms[static_cast<size_t>(j)];
      const float up_error = kDotTolerance * length * second_norms[static_cast<size_t>(j)];
      ASSERT_NEAR(got, gate, gate_error);
      ASSERT_EQ(sum.floats().row(i)[j], before.floats().row(i)[j] + got);
      // silu's slope is below 1.1.
      const float value = want.swiglu.floats().row(i)[j];
      ASSERT_NEAR(swiglu.floats().row(i)[j], value,
                  1.1F * gate_error * (std::abs(up) + up_error) + std::abs(gate) * up_error +
                      2e-6F * std::abs(value));
    }
  }
}

TEST_P(MatmulTypes, EqualTheReference) {
  const auto all = vectorised_ops();
  for (const int64_t depth : depths_of(GetParam())) {
    for (const int64_t columns : {2, 54}) {
      for (const int32_t rows : {1, 5, 8, 130}) {
        MatmulCase want(GetParam(), depth, columns, rows);
        for (const auto& ops : all) {
          SCOPED_TRACE(std::string(ops->name()) + " depth " + std::to_string(depth) + " columns " +
                       std::to_string(columns) + " rows " + std::to_string(rows));
          expect_equal(*ops, want);
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST_P(MatmulTypes, RowsHaveTheSameBitsInAnyCompanyOnAnyLanes) {
  const int64_t depth = depths_of(GetParam()).back();
  const int64_t columns = 100;
  const RandomWeights weights(GetParam(), columns, depth, 5);
  const MatrixPart part = weights.part();
  RowBuffer x = RowBuffer::random(64, depth, 6);
  for (const auto& ops : vectorised_ops()) {
    const auto matrix = ops->pack({&part, 1}, {.head_dim = 2}).value();
    RowBuffer alone(64, columns);
    for (int64_t i = 0; i < 64; ++i) {
      Lane lane;
      const Activations row{x.activations().data + static_cast<size_t>(i * x.floats().stride()) * 4,
                            depth};
      FloatRows out{alone.floats().row(i), columns};
      ops->matmul(lane, row, 1, *matrix, out);
    }
    for (int32_t rows = 1; rows <= 64; ++rows) {
      for (const int32_t lanes : {1, 2, 3}) {
        RowBuffer out(rows, columns);
        run(lanes,
            [&](Lane& lane) { ops->matmul(lane, x.activations(), rows, *matrix, out.floats()); });
        for (int64_t i = 0; i < rows; ++i) {
          ASSERT_TRUE(same_bits(out.floats().row(i), alone.floats().row(i), columns))
              << ops->name() << " " << type_text(GetParam()) << ": row " << i << " of " << rows
              << ", " << lanes << " lanes";
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, MatmulTypes, testing::ValuesIn(kAllTypes),
                         [](const auto& instance) { return type_text(instance.param); });

TEST(Decoders, EqualTheScalarDecodersBitForBit) {
  const MicroKernels* tables[] = {&avx2_kernels(), &avx512_kernels()};
  const size_t available = std::min<size_t>(available_isas().size() - 1, std::size(tables));
  for (size_t table = 0; table < available; ++table) {
    int vectorised = 0;
    for (const formats::TensorType type : kAllTypes) {
      const DecodeFunction decode = tables[table]->decoder(type);
      if (decode == nullptr) continue;
      ++vectorised;
      const int64_t block = formats::tensor_type_info(type).block_elements;
      for (const int64_t count : {block, 3 * block, 37 * block}) {
        const RandomWeights weights(type, 1, count, 7);
        std::vector<float> want(static_cast<size_t>(count));
        std::vector<float> got(static_cast<size_t>(count));
        quant::dequantize(type, weights.part().data, want);
        decode(weights.part().data.data(), count, got.data());
        ASSERT_TRUE(same_bits(got.data(), want.data(), count)) << type_text(type) << " x " << count;
      }
    }
    EXPECT_EQ(vectorised, 8);
  }
}

TEST(Norm, EqualsTheReferenceAndGathersRows) {
  const auto reference = make_cpu_ops("scalar", kFloat).value();
  for (const int64_t columns : {2, 16, 36, 576, 4097}) {
    RowBuffer x = RowBuffer::random(9, columns, 8);
    RowBuffer weight = RowBuffer::random(1, columns, 9);
    const std::vector<int32_t> rows = {7, 0, 3};
    RowBuffer want(9, columns);
    Lane whole;
    reference->rms_norm(whole, x.floats(), {}, 9, weight.floats().data, 1e-5F, want.activations());
    for (const auto& ops : vectorised_ops()) {
      RowBuffer all(9, columns);
      RowBuffer some(3, columns);
      run(2, [&](Lane& lane) {
        ops->rms_norm(lane, x.floats(), {}, 9, weight.floats().data, 1e-5F, all.activations());
        ops->rms_norm(lane, x.floats(), rows, 3, weight.floats().data, 1e-5F, some.activations());
      });
      for (int64_t i = 0; i < 9; ++i) {
        for (int64_t j = 0; j < columns; ++j) {
          const float value = want.floats().row(i)[j];
          ASSERT_NEAR(all.floats().row(i)[j], value, 1e-6F * std::abs(value) + 1e-7F) << columns;
        }
      }
      for (size_t i = 0; i < rows.size(); ++i) {
        EXPECT_TRUE(same_bits(some.floats().row(static_cast<int64_t>(i)), all.floats().row(rows[i]),
                              columns));
      }
    }
  }
}

TEST(Embed, DecodesTheTokensRows) {
  for (const formats::TensorType type : kAllTypes) {
    const RandomWeights table(type, 20, 512, 10);
    const MatrixPart part = table.part();
    const std::vector<int32_t> tokens = {19, 0, 7, 7};
    std::vector<float> want(20 * 512);
    quant::dequantize(type, part.data, want);
    for (const std::string_view isa : available_isas()) {
      const auto ops = make_cpu_ops(isa).value();
      const auto matrix = ops->pack({&part, 1}, {.head_dim = 2}).value();
      RowBuffer out(4, 512);
      run(3, [&](Lane& lane) { ops->embed(lane, *matrix, tokens, out.floats()); });
      for (size_t i = 0; i < tokens.size(); ++i) {
        EXPECT_TRUE(same_bits(out.floats().row(static_cast<int64_t>(i)),
                              want.data() + static_cast<size_t>(tokens[i]) * 512, 512));
      }
    }
  }
}

TEST(Isa, UnknownAndMissingOnesAreNamed) {
  const auto unknown = make_cpu_ops("neon");
  ASSERT_FALSE(unknown.ok());
  EXPECT_EQ(unknown.error().code(), ErrorCode::kInvalidArgument);
  EXPECT_NE(unknown.error().message().find("neon"), std::string::npos);
  EXPECT_EQ(make_cpu_ops("").value()->name(), available_isas().back());
  for (const std::string_view isa : {"avx2", "avx512"}) {
    const auto isas = available_isas();
    const bool has = std::find(isas.begin(), isas.end(), isa) != isas.end();
    const auto ops = make_cpu_ops(isa);
    EXPECT_EQ(ops.ok(), has);
    if (!has) {
      EXPECT_EQ(ops.error().code(), ErrorCode::kUnsupported);
    }
  }
}

TEST(Ops, RefuseShapesBeyondTheKernels) {
  for (const auto& ops : vectorised_ops()) {
    const auto head = ops->check_shape({.num_heads = 1, .num_kv_heads = 1, .head_dim = 258});
    ASSERT_FALSE(head.ok());
    EXPECT_EQ(head.error().code(), ErrorCode::kUnsupported);
    EXPECT_NE(head.error().message().find("258"), std::string::npos);
    EXPECT_FALSE(ops->check_shape({.num_heads = 65, .num_kv_heads = 1, .head_dim = 64}).ok());
    EXPECT_TRUE(ops->check_shape({.num_heads = 64, .num_kv_heads = 1, .head_dim = 256}).ok());
  }
}

}  // namespace
}  // namespace puna::kernels
