// SPDX-License-Identifier: Apache-2.0
// AWQ: the scales help the outputs, on the text that they were searched on and on another; what is
// folded into norms and rows cancels out.
#include "quant/awq.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "quant/awq_layer.h"
#include "quant/dequant.h"
#include "quant/encode_kernels.h"
#include "quant/test_rounding.h"

namespace puna::quant {
namespace {

using formats::Checkpoint;
using formats::WeightRole;

// Inputs of which a few columns are large, as activations are.
std::vector<float> inputs_of(int64_t rows, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<size_t>(rows * kColumns));
  for (size_t i = 0; i < x.size(); ++i) {
    const size_t column = i % kColumns;
    x[i] = normal(random) * (column % 16 == 3 ? 12.0F : 0.3F + 0.01F * static_cast<float>(column));
  }
  return x;
}

std::vector<float> weights(int64_t rows, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> w(static_cast<size_t>(rows * kColumns));
  for (float& value : w) value = normal(random);
  return w;
}

// Back among the unscaled weights.
std::vector<float> rounded_by_awq(const std::vector<float>& products,
                                  const std::vector<float>& scales, const std::vector<float>& w) {
  const AwqRounding rounding(products, scales, kGroup);
  std::vector<float> q(w.size());
  for (size_t row = 0; row < w.size() / kColumns; ++row) {
    std::vector<float> scaled(kColumns);
    std::vector<BFloat16> group_scales(kColumns / kGroup);
    std::vector<int8_t> codes(kColumns);
    for (size_t i = 0; i < kColumns; ++i) scaled[i] = w[row * kColumns + i] * scales[i];
    rounding.round_row(scaled, group_scales, codes);
    for (size_t i = 0; i < kColumns; ++i) {
      EXPECT_GE(codes[i], -8);
      EXPECT_LE(codes[i], 7);
      q[row * kColumns + i] =
          to_float(group_scales[i / kGroup]) * static_cast<float>(codes[i]) / scales[i];
    }
  }
  return q;
}

// Each group's scale fitted to its columns one by one, as the search does.
std::vector<float> rounded_by_importance(const std::vector<float>& products,
                                         const std::vector<float>& w) {
  std::vector<float> importance(kColumns);
  for (size_t i = 0; i < kColumns; ++i) importance[i] = products[i * kColumns + i];
  std::vector<float> q(w.size());
  for (size_t begin = 0; begin < q.size(); begin += kGroup) {
    const float fitted =
        fit_group()(w.data() + begin, importance.data() + begin % kColumns, kGroup);
    const float scale = to_float(to_bfloat16(fitted));
    for (size_t i = begin; i < begin + kGroup; ++i)
      q[i] = scale * std::nearbyint(std::clamp(w[i] * (1.0F / scale), -8.0F, 7.0F));
  }
  return q;
}

TEST(Awq, BeatsRoundingOnItsTextAndOnAnother) {
  const std::vector<float> text = inputs_of(256, 1);
  const std::vector<float> held_out = inputs_of(256, 2);
  const std::vector<float> products = products_of(text);
  const AwqInputs inputs{products, kColumns, {}, weights(40, 3)};
  const std::vector<float> scales = search_awq_scales(inputs, kGroup, 2);
  EXPECT_GT(scales[3], 1.5F * scales[4]);
  const std::vector<float> plain = rounded_alone(inputs.rows);
  const std::vector<float> awq = rounded_by_awq(products, scales, inputs.rows);
  EXPECT_LT(output_error(text, inputs.rows, awq), 0.6 * output_error(text, inputs.rows, plain));
  EXPECT_LT(output_error(held_out, inputs.rows, awq),
            0.6 * output_error(held_out, inputs.rows, plain));
}

TEST(Awq, TheSearchedErrorIsThatOfTheOutputs) {
  const std::vector<float> text = inputs_of(64, 5);
  const std::vector<float> products = products_of(text);
  const AwqInputs inputs{products, kColumns, {}, weights(19, 6)};
  // Powers of two and one scale for a group: rounding commutes with them, so the scales alone
  // must change nothing.
  const std::vector<float> ones(kColumns, 1.0F);
  std::vector<float> by_group(kColumns);
  for (size_t i = 0; i < kColumns; ++i) by_group[i] = i / kGroup % 2 == 0 ? 4.0F : 0.5F;
  const double error = awq_output_error(inputs, ones, kGroup, 1);
  EXPECT_NEAR(awq_output_error(inputs, by_group, kGroup, 3), error, 1e-4 * error);
  const std::vector<float> q = rounded_by_importance(products, inputs.rows);
  EXPECT_NEAR(error, output_error(text, inputs.rows, q), 1e-3 * error);
}

TEST(Awq, SumsAreTheSameOnEveryInstructionSet) {
  constexpr size_t kSize = 36;
  constexpr size_t kStride = kColumns;
  const std::vector<float> h = products_of(inputs_of(64, 12));
  const std::vector<float> e = weights(16 * kSize / kColumns + 1, 13);
  double expected[16];
  quadratic_forms_generic(h.data(), kStride, kSize, e.data(), expected);
  for (size_t lane = 0; lane < 16; ++lane) {
    double form = 0.0;
    for (size_t i = 0; i < kSize; ++i) {
      for (size_t j = 0; j < kSize; ++j) {
        form += static_cast<double>(h[std::max(i, j) * kStride + std::min(i, j)]) *
                static_cast<double>(e[i * 16 + lane]) * static_cast<double>(e[j * 16 + lane]);
      }
    }
    EXPECT_NEAR(expected[lane], form, 1e-4 * form);
  }
#if defined(__x86_64__)
  const auto expect_the_same = [&](QuadraticForms forms) {
    double found[16];
    forms(h.data(), kStride, kSize, e.data(), found);
    for (size_t lane = 0; lane < 16; ++lane) EXPECT_EQ(found[lane], expected[lane]);
  };
  if (__builtin_cpu_supports("avx2")) expect_the_same(quadratic_forms_avx2);
  if (encode_blocks() == encode_blocks_avx512) expect_the_same(quadratic_forms_avx512);
#endif
}

// Columns that rise and fall together: their errors add up, which a fit of each alone can't see.
TEST(Awq, GroupsAreClippedWhereTheirOutputsChangeLeast) {
  std::vector<float> text = inputs_of(256, 10);
  for (size_t row = 0; row < text.size(); row += kColumns) {
    const float common = 8.0F * text[row];
    for (size_t i = 0; i < kColumns; ++i) text[row + i] += common;
  }
  const std::vector<float> products = products_of(text);
  const std::vector<float> w = weights(40, 11);
  const std::vector<float> ones(kColumns, 1.0F);
  EXPECT_LT(output_error(text, w, rounded_by_awq(products, ones, w)),
            0.8 * output_error(text, w, rounded_by_importance(products, w)));
}

TEST(Awq, ColumnsOfOneMakerShareTheirScale) {
  const std::vector<float> products = products_of(inputs_of(64, 7));
  AwqInputs inputs{products, kColumns, {}, weights(8, 8)};
  for (int32_t i = 0; i < kColumns; ++i) inputs.made_by.push_back(i % 64);
  const std::vector<float> scales = search_awq_scales(inputs, kGroup, 1);
  for (size_t i = 0; i < 64; ++i) EXPECT_EQ(scales[i], scales[i + 64]);
  EXPECT_GT(scales[3], scales[4]);
}

TEST(Awq, InputsThatNeverCameAreLeftAlone) {
  const std::vector<float> nothing(static_cast<size_t>(kColumns * kColumns));
  const AwqInputs inputs{nothing, kColumns, {}, weights(8, 9)};
  for (const float scale : search_awq_scales(inputs, kGroup, 1)) EXPECT_EQ(scale, 1.0F);
}

// Products of a layer whose inputs differ by column: a diagonal is enough.
std::vector<float> uneven_products(int64_t columns) {
  std::vector<float> products(static_cast<size_t>(columns * columns));
  for (int64_t i = 0; i < columns; ++i)
    products[static_cast<size_t>(i * columns + i)] = i % 7 == 2 ? 900.0F : 1.0F;
  return products;
}

TEST(AwqLayer, WhatIsFoldedCancelsOut) {
  auto checkpoint = Checkpoint::open(std::string(PUNA_GOLDEN_DIR) + "/tiny_llama_hf");
  ASSERT_TRUE(checkpoint.ok());
  const formats::ModelSpec& spec = checkpoint->spec();
  std::vector<float> products;
  const auto made = AwqLayer::search(
      *checkpoint, 1,
      [&](formats::WeightId id) -> Result<std::span<const float>> {
        EXPECT_EQ(id.layer, 1);
        products = uneven_products(checkpoint->tensor(id).columns);
        return std::span<const float>(products);
      },
      32, 2);
  ASSERT_TRUE(made.ok()) << made.error().message();
  // A norm's new values times the scales are the old ones, whatever its type rounded off.
  for (const auto& [norm, reader] : {std::pair(WeightRole::kAttnNorm, WeightRole::kAttnK),
                                     std::pair(WeightRole::kFfnNorm, WeightRole::kFfnUp)}) {
    const formats::TensorView& view = checkpoint->tensor({norm, 1});
    std::vector<float> before(static_cast<size_t>(view.columns));
    std::vector<float> after(before.size());
    dequantize(view.type, view.data, before);
    ASSERT_EQ(made->norm(norm).size(), view.data.size());
    dequantize(view.type, made->norm(norm), after);
    const auto scales = made->column_scales(reader);
    float largest = 0.0F;
    for (size_t i = 0; i < before.size(); ++i) {
      EXPECT_NEAR(after[i] * scales[i], before[i], 1e-6F * std::fabs(before[i]));
      largest = std::max(largest, scales[i]);
    }
    EXPECT_GT(largest, 1.2F);
  }
  EXPECT_EQ(made->column_scales(WeightRole::kFfnDown).data(),
            made->row_divisors(WeightRole::kFfnUp).data());
  EXPECT_TRUE(made->row_divisors(WeightRole::kAttnQ).empty());
  // Column c of a head reads row c of the values that its head shares with its neighbours.
  const auto attended = made->column_scales(WeightRole::kAttnOutput);
  const auto values = made->row_divisors(WeightRole::kAttnV);
  ASSERT_EQ(values.size(), static_cast<size_t>(spec.kv_size()));
  for (int32_t head = 0; head < spec.num_heads; ++head) {
    const int32_t kv_head = head * spec.num_kv_heads / spec.num_heads;
    for (int32_t i = 0; i < spec.head_dim; ++i) {
      EXPECT_EQ(attended[static_cast<size_t>(head * spec.head_dim + i)],
                values[static_cast<size_t>(kv_head * spec.head_dim + i)]);
    }
  }
}

}  // namespace
}  // namespace puna::quant
