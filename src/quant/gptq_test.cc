// SPDX-License-Identifier: Apache-2.0
#include "quant/gptq.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "quant/encode_kernels.h"
#include "quant/test_rounding.h"

namespace puna::quant {
namespace {

// Inputs whose columns depend on each other, as activations do.
std::vector<float> inputs(int64_t rows, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  constexpr int64_t kHidden = 24;
  std::vector<float> mixing(static_cast<size_t>(kHidden * kColumns));
  std::mt19937_64 fixed(99);
  for (float& value : mixing) value = normal(fixed);
  std::vector<float> x(static_cast<size_t>(rows * kColumns));
  for (int64_t row = 0; row < rows; ++row) {
    std::vector<float> hidden(kHidden);
    for (float& value : hidden) value = normal(random);
    for (int64_t j = 0; j < kColumns; ++j) {
      float sum = 0.2F * normal(random);
      for (int64_t k = 0; k < kHidden; ++k) {
        sum += hidden[static_cast<size_t>(k)] * mixing[static_cast<size_t>(k * kColumns + j)];
      }
      x[static_cast<size_t>(row * kColumns + j)] = sum;
    }
  }
  return x;
}

std::vector<float> random_row(uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> row(kColumns);
  for (float& value : row) value = normal(random);
  return row;
}

std::vector<float> rounded_by_gptq(const GptqFactor& factor, std::vector<float> w) {
  std::vector<BFloat16> scales(kColumns / kGroup);
  std::vector<int8_t> codes(kColumns);
  factor.round_row(w, kGroup, scales, codes);
  std::vector<float> q(kColumns);
  for (size_t i = 0; i < q.size(); ++i) {
    EXPECT_GE(codes[i], -8);
    EXPECT_LE(codes[i], 7);
    q[i] = to_float(scales[i / kGroup]) * static_cast<float>(codes[i]);
  }
  return q;
}

TEST(Gptq, BeatsRoundingOnItsTextAndOnAnother) {
  const std::vector<float> text = inputs(512, 1);
  const std::vector<float> held_out = inputs(512, 2);
  const auto factor = GptqFactor::of(products_of(text), kColumns);
  ASSERT_TRUE(factor.ok()) << factor.error().message();
  double alone[2] = {};
  double together[2] = {};
  for (uint64_t seed = 10; seed < 26; ++seed) {
    const std::vector<float> w = random_row(seed);
    const std::vector<float> plain = rounded_alone(w);
    const std::vector<float> gptq = rounded_by_gptq(*factor, w);
    alone[0] += output_error(text, w, plain);
    together[0] += output_error(text, w, gptq);
    alone[1] += output_error(held_out, w, plain);
    together[1] += output_error(held_out, w, gptq);
  }
  EXPECT_LT(together[0], 0.5 * alone[0]);
  EXPECT_LT(together[1], 0.5 * alone[1]);
}

// Without correlation between columns there is nothing to gain: plain rounding.
TEST(Gptq, IndependentColumnsAreRoundedAlone) {
  std::vector<float> identity(static_cast<size_t>(kColumns * kColumns));
  for (size_t i = 0; i < kColumns; ++i) identity[i * kColumns + i] = 2.0F;
  const auto factor = GptqFactor::of(identity, kColumns);
  ASSERT_TRUE(factor.ok());
  const std::vector<float> w = random_row(3);
  const std::vector<float> expected = rounded_alone(w);
  const std::vector<float> found = rounded_by_gptq(*factor, w);
  for (size_t i = 0; i < w.size(); ++i) EXPECT_NEAR(found[i], expected[i], 1e-6F);
}

TEST(Gptq, RefusesWhatIsNoSumOfProducts) {
  std::vector<float> broken(static_cast<size_t>(kColumns * kColumns));
  broken[0] = NAN;
  EXPECT_FALSE(GptqFactor::of(broken, kColumns).ok());
  std::vector<float> indefinite(static_cast<size_t>(kColumns * kColumns));
  for (size_t i = 0; i < kColumns; ++i) indefinite[i * kColumns + i] = 1.0F;
  indefinite[kColumns] = 5.0F;  // of columns 1 and 0, larger than their squares allow
  EXPECT_FALSE(GptqFactor::of(indefinite, kColumns).ok());
  EXPECT_TRUE(GptqFactor::of(std::vector<float>(broken.size()), kColumns).ok());
}

}  // namespace
}  // namespace puna::quant
