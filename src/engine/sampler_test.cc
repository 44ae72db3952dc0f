// SPDX-License-Identifier: Apache-2.0
#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>

#include "engine/philox.h"
#include "engine/softmax.h"

namespace puna::engine {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<float> random_logits(size_t vocab, uint32_t seed, float spread = 3.0F) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0F, spread);
  std::vector<float> logits(vocab);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

SampledToken sample(Sampler& sampler, std::vector<float> logits, const SamplingParams& params,
                    std::vector<TokenId> history = {1}, int32_t prompt_tokens = 1,
                    std::vector<TokenId> banned = {}) {
  BatchItem item;
  item.sample = true;
  item.sampling = &params;
  item.history = history;
  item.prompt_tokens = prompt_tokens;
  item.banned = banned;
  SampledToken out;
  sampler.sample(logits, item, out);
  return out;
}

// The distribution by its definition: a full sort, in double.
std::vector<double> exact_distribution(const std::vector<float>& logits,
                                       const SamplingParams& params) {
  std::vector<size_t> order(logits.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return logits[a] > logits[b]; });
  if (params.top_k > 0 && static_cast<size_t>(params.top_k) < order.size()) {
    order.resize(static_cast<size_t>(params.top_k));
  }
  std::vector<double> weights;
  for (size_t id : order) {
    weights.push_back(std::exp(static_cast<double>(logits[id] - logits[order[0]]) /
                               static_cast<double>(params.temperature)));
  }
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  double sum = 0;
  size_t kept = 0;
  while (kept < weights.size() && sum < static_cast<double>(params.top_p) * total) {
    sum += weights[kept++];
  }
  std::vector<double> distribution(logits.size());
  double kept_total = 0;
  for (size_t i = 0; i < kept; ++i) {
    if (weights[i] < static_cast<double>(params.min_p)) continue;
    distribution[order[i]] = weights[i];
    kept_total += weights[i];
  }
  for (double& probability : distribution) probability /= kept_total;
  return distribution;
}

// Draws at `draws` positions and compares the counts with `expected` by Pearson's chi-square. The
// limit is the mean plus five standard deviations: by chance less than one run in a million passes
// it.
void expect_distribution(const std::vector<float>& logits, const SamplingParams& params,
                         const std::vector<double>& expected, size_t draws = 20000) {
  Sampler sampler(static_cast<int32_t>(logits.size()));
  std::vector<double> counts(logits.size());
  std::vector<TokenId> history(draws + 1, 0);
  std::vector<float> scratch;
  for (size_t position = 1; position <= draws; ++position) {
    scratch = logits;
    BatchItem item;
    item.sampling = &params;
    item.history = std::span(history).first(position);
    item.prompt_tokens = static_cast<int32_t>(position);
    SampledToken out;
    sampler.sample(scratch, item, out);
    counts[static_cast<size_t>(out.token)] += 1;
  }
  double chi_square = 0;
  double cells = 0;
  double rest_expected = 0;  // rare tokens together
  double rest_count = 0;
  for (size_t id = 0; id < logits.size(); ++id) {
    const double mean = expected[id] * static_cast<double>(draws);
    if (expected[id] == 0.0) {
      ASSERT_EQ(counts[id], 0.0) << "token " << id << " was cut off";
    } else if (mean < 10) {
      rest_expected += mean;
      rest_count += counts[id];
    } else {
      chi_square += (counts[id] - mean) * (counts[id] - mean) / mean;
      cells += 1;
    }
  }
  if (rest_expected > 1) {
    chi_square += (rest_count - rest_expected) * (rest_count - rest_expected) / rest_expected;
    cells += 1;
  }
  const double freedom = cells - 1;
  EXPECT_LE(chi_square, freedom + 5 * std::sqrt(2 * freedom) + 1e-9) << cells << " cells";
}

TEST(PhiloxTest, KnownAnswers) {  // of the authors' own test file (Random123, kat_vectors)
  EXPECT_EQ(philox(0, {0, 0, 0, 0}),
            (PhiloxCounter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox(~uint64_t{0}, {~0U, ~0U, ~0U, ~0U}),
            (PhiloxCounter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox(0x299f31d0a4093822ULL, {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}),
            (PhiloxCounter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(SoftmaxTest, ExpIsExactToTwoPartsInTenMillion) {
  for (float x = 0.0F; x > -87.0F; x -= 0.000731F) {
    const double exact = std::exp(static_cast<double>(x));
    ASSERT_NEAR(static_cast<double>(exp_of_nonpositive(x)) / exact, 1.0, 2e-7) << x;
  }
  EXPECT_EQ(exp_of_nonpositive(0.0F), 1.0F);
  EXPECT_EQ(exp_of_nonpositive(-kInfinity), 0.0F);
  EXPECT_EQ(exp_of_nonpositive(-1e30F), 0.0F);
}

// What all passes give for one row, in the order of their use.
struct PassResults {
  std::vector<float> maxima;
  std::vector<float> probabilities;
  std::vector<double> sums;
  size_t good_count = 0;
  double good_mass = 0;
  std::vector<float> kept;
  std::vector<float> likely;
  bool operator==(const PassResults&) const = default;
};

PassResults results_of(const SoftmaxPasses& passes, const std::vector<float>& logits) {
  const size_t count = logits.size();
  const size_t chunks = chunks_of(count);
  PassResults results;
  results.maxima.resize(chunks);
  passes.chunk_maxima(logits.data(), count, results.maxima.data());
  const float largest = *std::max_element(results.maxima.begin(), results.maxima.end());
  results.probabilities.resize(padded_to_chunks(count));
  passes.exponentials(logits.data(), count, largest, 0.7F, results.probabilities.data());
  results.sums.resize(chunks);
  passes.chunk_sums(results.probabilities.data(), chunks, results.sums.data());
  const TokenMass good =
      passes.mass_at_least(logits.data(), count, 1.5F, results.probabilities.data());
  results.good_count = good.count;
  results.good_mass = good.probability;
  results.kept = results.probabilities;
  passes.clear_behind(logits.data(), count, 1.5F, count / 2, results.kept.data());
  results.likely = results.probabilities;
  passes.clear_below(0.001F, chunks, results.likely.data());
  return results;
}

TEST(SoftmaxTest, EveryInstructionSetGivesTheSameBits) {
  for (const size_t vocab :
       {size_t{1}, size_t{255}, size_t{256}, size_t{257}, size_t{49152}, size_t{128001}}) {
    std::vector<float> logits = random_logits(vocab, 4);
    for (size_t i = 5; i < vocab; i += 1000) logits[i] = kNan;
    for (size_t i = 6; i < vocab; i += 1500) logits[i] = 1.5F;
    for (size_t i = 7; i < vocab; i += 2000) logits[i] = -kInfinity;
    const PassResults expected = results_of(softmax_passes("scalar"), logits);
    for (const char* isa : {"avx2", "avx512", "avx512_bf16", ""}) {  // or what the CPU has of it
      EXPECT_TRUE(results_of(softmax_passes(isa), logits) == expected) << isa << " " << vocab;
    }
  }
}

// Against the definitions, in double and without chunks.
TEST(SoftmaxTest, PassesDoWhatTheySay) {
  std::vector<float> logits = random_logits(1000, 6);
  logits[300] = kNan;
  logits[999] = kInfinity;
  const PassResults with_infinity = results_of(softmax_passes(""), logits);
  EXPECT_EQ(with_infinity.maxima.back(), kLargestLogit);
  EXPECT_EQ(with_infinity.probabilities[300], 0.0F);
  EXPECT_EQ(with_infinity.probabilities[999], 1.0F);
  logits[999] = logits[500] = 1.5F;
  const PassResults results = results_of(softmax_passes(""), logits);
  float largest = kMinusInfinity;
  for (const float logit : logits) largest = logit > largest ? logit : largest;
  std::vector<double> sums(results.sums.size());
  size_t good_count = 0;
  double good_mass = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    const double exact = i == 300 ? 0.0 : std::exp(static_cast<double>(logits[i] - largest) * 0.7);
    EXPECT_NEAR(static_cast<double>(results.probabilities[i]), exact, 1e-6);
    sums[i / kSumChunk] += static_cast<double>(results.probabilities[i]);
    good_count += logits[i] >= 1.5F ? 1 : 0;
    good_mass += logits[i] >= 1.5F ? exact : 0.0;
    const bool kept = logits[i] > 1.5F || (logits[i] == 1.5F && i <= 500);
    EXPECT_EQ(results.kept[i], kept ? results.probabilities[i] : 0.0F) << i;
    const bool likely = results.probabilities[i] >= 0.001F;
    EXPECT_EQ(results.likely[i], likely ? results.probabilities[i] : 0.0F) << i;
  }
  EXPECT_EQ(results.good_count, good_count);
  EXPECT_NEAR(results.good_mass, good_mass, 1e-5 * good_mass);
  for (size_t i = 0; i < sums.size(); ++i) EXPECT_NEAR(results.sums[i], sums[i], 1e-5);
}

TEST(SamplerTest, GreedyTakesTheLargestAndTheLowestIdOfEqualOnes) {
  Sampler sampler(5);
  const SamplingParams greedy{.temperature = 0.0F};
  EXPECT_EQ(sample(sampler, {1, 3, 2, 3, 0}, greedy).token, 1);
  EXPECT_EQ(sample(sampler, {1, 3, 2, 3, 0}, greedy, {1}, 1, {1}).token, 3);
  EXPECT_EQ(sample(sampler, {kNan, -kInfinity, -5, kNan, -7}, greedy).token, 2);
  EXPECT_EQ(sample(sampler, {1, kInfinity, 2, kInfinity, 0}, greedy).token, 1);
}

TEST(SamplerTest, EveryInputGivesATokenThatIsNotBanned) {
  Sampler sampler(4);
  for (float temperature : {0.0F, 1.0F, 100.0F}) {
    for (float logit : {kNan, -kInfinity, kInfinity, 3e38F, -3e38F, 0.0F}) {
      const SamplingParams params{.temperature = temperature,
                                  .top_k = 3,
                                  .top_p = 0.5F,
                                  .min_p = 0.1F,
                                  .repetition_penalty = 1.5F,
                                  .top_logprobs = 4};
      const SampledToken out =
          sample(sampler, {logit, logit, logit, logit}, params, {0, 1}, 1, {0});
      EXPECT_GT(out.token, 0);
      EXPECT_LT(out.token, 4);
      EXPECT_TRUE(std::isfinite(out.logprob));
      for (int i = 0; i < out.num_top; ++i) {
        EXPECT_TRUE(std::isfinite(out.top[static_cast<size_t>(i)].logprob));
      }
    }
  }
}

TEST(SamplerTest, FollowsTheExactDistribution) {
  const std::vector<float> logits = random_logits(40, 3, 1.5F);
  const std::vector<SamplingParams> cases = {
      {.temperature = 1.0F, .seed = 1},
      {.temperature = 0.5F, .seed = 2},
      {.temperature = 2.5F, .seed = 3},
      {.temperature = 1.0F, .top_k = 7, .seed = 4},
      {.temperature = 1.0F, .top_p = 0.8F, .seed = 5},
      {.temperature = 1.0F, .min_p = 0.1F, .seed = 6},
      {.temperature = 1.3F, .top_k = 12, .top_p = 0.9F, .min_p = 0.02F, .seed = 7},
  };
  for (const SamplingParams& params : cases) {
    SCOPED_TRACE(params.seed);
    expect_distribution(logits, params, exact_distribution(logits, params));
  }
}

TEST(SamplerTest, DrawsAcrossManySumChunks) {
  std::vector<float> logits(3000, -1e4F);  // 12 chunks, most of them without mass
  for (size_t i = 0; i < 5; ++i) logits[i * 700 + 13] = static_cast<float>(i) * 0.3F;
  const SamplingParams params{.seed = 9};
  expect_distribution(logits, params, exact_distribution(logits, params));
}

// Every token that the definition keeps is drawn, and no other, for vocabularies up to Llama 3's.
TEST(SamplerTest, CutsExactlyWhereAFullSortDoes) {
  for (const int32_t vocab : {17, 300, 5000, 128256}) {
    TokenCutFinder finder(vocab, softmax_passes(""));
    for (const float spread : {0.001F, 0.5F, 4.0F}) {
      std::vector<float> values = random_logits(static_cast<size_t>(vocab), 5, spread);
      for (size_t i = 0; i + 3 < values.size(); i += 7) values[i + 3] = values[i];  // ties
      std::vector<float> maxima(chunks_of(values.size()));
      scalar_softmax_passes().chunk_maxima(values.data(), values.size(), maxima.data());
      TokenDistribution distribution;
      distribution.logits = values;
      distribution.chunk_maxima = maxima;
      distribution.largest = *std::max_element(values.begin(), values.end());
      std::vector<float> probabilities;
      for (const float value : values) {
        probabilities.push_back(exp_of_nonpositive(value - distribution.largest));
        distribution.total += static_cast<double>(probabilities.back());
      }
      distribution.probabilities = probabilities;
      for (const int32_t top_k : {0, 1, 5, 16, 1000}) {
        for (const float top_p : {0.01F, 0.5F, 0.95F, 0.9999F, 1.0F}) {
          const TokenCut cut = finder.find(distribution, top_k, top_p);
          std::vector<size_t> order(values.size());
          std::iota(order.begin(), order.end(), size_t{0});
          std::stable_sort(order.begin(), order.end(),
                           [&](size_t a, size_t b) { return values[a] > values[b]; });
          if (top_k > 0 && top_k < vocab) order.resize(static_cast<size_t>(top_k));
          double total = 0;
          for (size_t id : order) total += static_cast<double>(probabilities[id]);
          double sum = 0;
          size_t kept = top_p < 1.0F ? 0 : order.size();
          while (kept < order.size() && sum < static_cast<double>(top_p) * total) {
            sum += static_cast<double>(probabilities[order[kept++]]);
          }
          const size_t last = order[kept - 1];
          const auto found =
              static_cast<size_t>(std::count_if(order.begin(), order.end(), [&](size_t id) {
                return cut.keeps(values[id], static_cast<TokenId>(id));
              }));
          // Sums taken in another order may differ in the last bits, which moves the border by one.
          EXPECT_NEAR(static_cast<double>(found), static_cast<double>(kept), top_p < 1.0F ? 1 : 0)
              << vocab << " " << spread << " k=" << top_k << " p=" << top_p;
          EXPECT_TRUE(found != kept || cut.keeps(values[last], static_cast<TokenId>(last)));
        }
      }
    }
  }
}

TEST(SamplerTest, PenaltiesFollowTheirDefinition) {
  const std::vector<float> logits = {2.0F, -1.0F, 0.5F, 1.0F, 0.0F, -3.0F};
  const std::vector<TokenId> history = {0, 1, 0, 2, 2, 5};  // the first three are prompt
  const SamplingParams params{.temperature = 0.0F,
                              .repetition_penalty = 1.25F,
                              .frequency_penalty = 0.5F,
                              .presence_penalty = 0.25F,
                              .logit_bias = {{4, 1.5F}, {3, -2.0F}},
                              .top_logprobs = 6};
  const std::vector<double> expected = {2.0 / 1.25, -1.0 * 1.25, 0.5 / 1.25 - 0.5 * 2 - 0.25,
                                        1.0 - 2.0,  0.0 + 1.5,   -3.0 * 1.25 - 0.5 - 0.25};
  double total = 0;
  for (double logit : expected) total += std::exp(logit);
  Sampler sampler(6);
  for (int repeat = 0; repeat < 2; ++repeat) {  // the scratch must be clean again
    const SampledToken out = sample(sampler, logits, params, history, 3);
    EXPECT_EQ(out.token, 0);
    ASSERT_EQ(out.num_top, 6);
    for (const TokenLogprob& top : std::span(out.top).first(6)) {
      EXPECT_NEAR(static_cast<double>(top.logprob),
                  expected[static_cast<size_t>(top.token)] - std::log(total), 1e-5);
    }
  }
}

TEST(SamplerTest, LogprobsAreOfTheDistributionBeforeTemperature) {
  const std::vector<float> logits = random_logits(1000, 8);
  double total = 0;
  for (float logit : logits) total += std::exp(static_cast<double>(logit));
  Sampler sampler(1000);
  const SamplingParams params{.temperature = 0.7F, .top_k = 50, .seed = 3, .top_logprobs = 20};
  const SampledToken out = sample(sampler, logits, params);
  EXPECT_NEAR(static_cast<double>(out.logprob),
              static_cast<double>(logits[static_cast<size_t>(out.token)]) - std::log(total), 1e-5);
  std::vector<TokenId> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](TokenId a, TokenId b) {
    return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
  });
  ASSERT_EQ(out.num_top, 20);
  for (size_t i = 0; i < 20; ++i) {
    EXPECT_EQ(out.top[i].token, order[i]);
    EXPECT_NEAR(static_cast<double>(out.top[i].logprob),
                static_cast<double>(logits[static_cast<size_t>(order[i])]) - std::log(total), 1e-5);
  }
}

TEST(SamplerTest, OnlySeedAndPositionDecideTheDraw) {
  const std::vector<float> logits = random_logits(500, 21);
  const SamplingParams params{.temperature = 1.5F, .seed = 77};
  const SamplingParams other{.temperature = 1.5F, .seed = 78};
  Sampler used(500);
  for (int i = 0; i < 10; ++i) sample(used, random_logits(500, 90), other, {1, 2, 3});
  int differs_by_seed = 0;
  int differs_by_position = 0;
  for (size_t length = 1; length < 60; ++length) {
    const std::vector<TokenId> history(length, 4);
    Sampler fresh(500);
    const TokenId token = sample(fresh, logits, params, history).token;
    EXPECT_EQ(sample(used, logits, params, history).token, token);
    differs_by_seed += sample(used, logits, other, history).token != token ? 1 : 0;
    const std::vector<TokenId> longer(length + 1, 4);
    differs_by_position += sample(used, logits, params, longer).token != token ? 1 : 0;
  }
  EXPECT_GT(differs_by_seed, 20);
  EXPECT_GT(differs_by_position, 20);
}

TEST(SamplerTest, StrongBiasForcesAndForbids) {
  Sampler sampler(100);
  const std::vector<float> logits = random_logits(100, 2);
  SamplingParams params{.logit_bias = {{42, 100.0F}}};
  for (uint64_t seed = 0; seed < 50; ++seed) {
    params.seed = seed;
    EXPECT_EQ(sample(sampler, logits, params).token, 42);
  }
}

}  // namespace
}  // namespace puna::engine
