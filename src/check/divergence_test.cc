// SPDX-License-Identifier: Apache-2.0
#include "check/divergence.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "check/twin_models.h"
#include "formats/checkpoint.h"

namespace puna::check {
namespace {

std::vector<float> logits_of(const std::vector<double>& probabilities, double shift = 0) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p) + shift));
  return logits;
}

TEST(Divergence, OfOneTokenByHand) {
  const std::vector<double> base = {0.5, 0.25, 0.25};
  const std::vector<double> variant = {0.25, 0.5, 0.25};
  const TokenDivergence of = token_divergence(logits_of(base, 3), logits_of(variant, -1), 0);
  EXPECT_NEAR(of.kld, 0.5 * std::log(2) - 0.25 * std::log(2), 1e-6);
  EXPECT_NEAR(of.base_nll, std::log(2), 1e-6);
  EXPECT_NEAR(of.variant_nll, std::log(4), 1e-6);
  EXPECT_NEAR(of.delta_p(), -0.25, 1e-6);
  EXPECT_FALSE(of.same_top);
}

TEST(Divergence, OfEqualRowsIsZero) {
  std::vector<float> logits;
  for (int i = 0; i < 5000; ++i) logits.push_back(std::sin(static_cast<float>(i)) * 8);
  const TokenDivergence of = token_divergence(logits, logits, 7);
  EXPECT_EQ(of.kld, 0);
  EXPECT_EQ(of.delta_p(), 0);
  EXPECT_TRUE(of.same_top);
}

TEST(Divergence, ImprobableTermsAreLeftOut) {
  const std::vector<float> base = {0, -17};
  const std::vector<float> variant = {0, -300};
  EXPECT_LT(token_divergence(base, variant, 0).kld, 1e-7);
  const std::vector<float> broken = {0, NAN};
  EXPECT_FALSE(std::isfinite(token_divergence(base, broken, 0).kld));
}

TEST(Divergence, SummaryByHand) {
  std::vector<TokenDivergence> tokens;
  for (int i = 0; i < 101; ++i) {
    tokens.push_back({.kld = i / 100.0,
                      .base_nll = std::log(2),
                      .variant_nll = i % 2 == 0 ? std::log(2) : std::log(4),
                      .same_top = i < 50});
  }
  const Divergence of = summarise(tokens);
  EXPECT_EQ(of.tokens, 101);
  EXPECT_NEAR(of.kld.value, 0.5, 1e-12);
  EXPECT_NEAR(of.kld.error, std::sqrt(0.085 / 100), 1e-6);  // variance of 0…1 in 101 steps
  EXPECT_NEAR(of.kld_quantiles[0], 1, 1e-12);
  EXPECT_NEAR(of.kld_quantiles[5], 0.5, 1e-12);
  EXPECT_NEAR(of.kld_quantiles[1], 0.999, 1e-12);
  EXPECT_NEAR(of.base_ppl.value, 2, 1e-12);
  EXPECT_EQ(of.base_ppl.error, 0);
  const double changed = 50.0 / 101;
  EXPECT_NEAR(of.variant_ppl.value, 2 * std::pow(2, changed), 1e-12);
  EXPECT_NEAR(of.ppl_ratio.value, std::pow(2, changed), 1e-12);
  EXPECT_NEAR(of.delta_p.value, -0.25 * changed, 1e-12);
  EXPECT_NEAR(of.rms_delta_p.value, 0.25 * std::sqrt(changed), 1e-12);
  EXPECT_NEAR(of.same_top.value, 50.0 / 101, 1e-12);
  EXPECT_NEAR(of.same_top.error, std::sqrt(of.same_top.value * (1 - of.same_top.value) / 100),
              1e-12);
  EXPECT_NE(divergence_table(of).find("101 predicted tokens"), std::string::npos);
  EXPECT_NE(divergence_json(of).find("\"mean_kld\": 0.5,"), std::string::npos);
  EXPECT_EQ(summarise({}).tokens, 0);
}

formats::Checkpoint tiny(const std::string& name) {
  auto checkpoint = formats::Checkpoint::open(PUNA_GOLDEN_DIR "/" + name);
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.error().message();
  return std::move(checkpoint).value();
}

std::vector<int32_t> tokens_up_to(size_t count, int32_t vocab) {
  std::vector<int32_t> tokens;
  for (size_t i = 0; i < count; ++i) {
    tokens.push_back(static_cast<int32_t>(i * 7919 % static_cast<size_t>(vocab)));
  }
  return tokens;
}

TEST(TwinModels, AModelIsItself) {
  const formats::Checkpoint model = tiny("tiny_llama_hf");
  auto twins = TwinModels::create(model, model, {.max_tokens = 300, .threads = 2});
  ASSERT_TRUE(twins.ok()) << twins.error().message();
  std::vector<TokenDivergence> out;
  const std::vector<int32_t> tokens = tokens_up_to(300, model.spec().vocab_size);
  ASSERT_TRUE(twins->measure(tokens, 100, out).ok());
  EXPECT_EQ(out.size(), 199U);
  for (const TokenDivergence& token : out) {
    EXPECT_EQ(token.kld, 0);
    EXPECT_TRUE(token.same_top);
  }
}

// A KV type that rounds shows, the number of threads and what came before does not.
TEST(TwinModels, SeesRoundingAndGivesTheSameBits) {
  const formats::Checkpoint model = tiny("tiny_llama_hf");
  const std::vector<int32_t> tokens = tokens_up_to(200, model.spec().vocab_size);
  std::vector<TokenDivergence> one;
  std::vector<TokenDivergence> two;
  for (auto* out : {&one, &two}) {
    auto twins = TwinModels::create(model, model,
                                    {.max_tokens = 256,
                                     .threads = out == &one ? 1 : 3,
                                     .base_kv = kernels::KvType::kF32,
                                     .variant_kv = kernels::KvType::kInt8});
    ASSERT_TRUE(twins.ok());
    if (out == &two) {
      std::vector<TokenDivergence> other;
      ASSERT_TRUE(twins->measure(tokens_up_to(64, 50), 0, other).ok());
    }
    ASSERT_TRUE(twins->measure(tokens, 0, *out).ok());
  }
  ASSERT_EQ(one.size(), 199U);
  double sum = 0;
  for (size_t i = 0; i < one.size(); ++i) {
    EXPECT_EQ(one[i].kld, two[i].kld);
    EXPECT_EQ(one[i].variant_nll, two[i].variant_nll);
    sum += one[i].kld;
  }
  EXPECT_GT(sum, 0);
  EXPECT_LT(sum / static_cast<double>(one.size()), 0.01);
}

TEST(TwinModels, RefusesAnotherModel) {
  const formats::Checkpoint model = tiny("tiny_llama_hf");
  formats::ModelSpec other = model.spec();
  EXPECT_TRUE(check_same_shape(model.spec(), other).ok());
  other.vocab_size += 1;
  EXPECT_NE(check_same_shape(model.spec(), other).error().message().find("vocabulary"),
            std::string::npos);
  other = model.spec();
  other.architecture = "qwen2";
  EXPECT_NE(check_same_shape(model.spec(), other).error().message().find("qwen2"),
            std::string::npos);
  other = model.spec();
  other.num_layers = 1;
  EXPECT_FALSE(check_same_shape(model.spec(), other).ok());
}

}  // namespace
}  // namespace puna::check
