// SPDX-License-Identifier: Apache-2.0
// Sampling against a reference that sorts and sums in double: the token must be the one whose share
// of the kept probability holds the drawn number, up to the rounding of the shares.
#include "kernels/cuda/sampling.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/cuda/test_device.h"

namespace puna::kernels::cuda {
namespace {

TEST(CudaSampling, WithoutTemperatureItIsTheLowestIdOfTheLargestLogit) {
  std::mt19937 random(6);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float minus_infinity = -std::numeric_limits<float>::infinity();
  for (const size_t vocab : {3U, 1024U, 128256U}) {
    auto logits = normal_floats(5 * vocab, random);
    logits[vocab - 1] = 100.0F;
    logits[vocab + 1] = 50.0F;
    logits[vocab + vocab - 1] = 50.0F;
    logits[2 * vocab] = nan;
    logits[2 * vocab + 2] = 60.0F;
    for (size_t i = 0; i < vocab; ++i) {
      logits[3 * vocab + i] = nan;
      logits[4 * vocab + i] = minus_infinity;
    }
    DeviceArray<float> in(logits);
    DeviceArray<SampleParams> params(std::vector<SampleParams>(5));
    DeviceArray<int32_t> slots(std::vector<int32_t>{1, 0, -1, 2, 3});
    DeviceArray<int32_t> tokens(5);
    DeviceArray<int32_t> last(4);
    sample_tokens({.logits = in.data(),
                   .params = params.data(),
                   .slots = slots.data(),
                   .tokens = tokens.data(),
                   .last_tokens = last.data(),
                   .rows = 5,
                   .vocab_size = static_cast<int32_t>(vocab)},
                  nullptr);
    const auto v = static_cast<int32_t>(vocab);
    EXPECT_EQ(tokens.values(), (std::vector<int32_t>{v - 1, 1, 2, 0, 0}));
    EXPECT_EQ(last.values(), (std::vector<int32_t>{1, v - 1, 0, 0}));
  }
}

std::vector<int32_t> sampled(const std::vector<float>& logits,
                             const std::vector<SampleParams>& params) {
  const size_t rows = params.size();
  DeviceArray<float> in(logits);
  DeviceArray<SampleParams> device_params(params);
  DeviceArray<int32_t> slots(rows);  // -1
  DeviceArray<int32_t> tokens(rows);
  sample_tokens({.logits = in.data(),
                 .params = device_params.data(),
                 .slots = slots.data(),
                 .tokens = tokens.data(),
                 .last_tokens = nullptr,
                 .rows = static_cast<int32_t>(rows),
                 .vocab_size = static_cast<int32_t>(logits.size() / rows)},
                nullptr);
  return tokens.values();
}

// The probabilities that are left of a row, as engine/sampler.h says.
std::vector<double> kept_probabilities(const float* logits, size_t vocab,
                                       const SampleParams& params) {
  std::vector<double> weights(vocab);
  const auto largest = static_cast<double>(*std::max_element(logits, logits + vocab));
  for (size_t id = 0; id < vocab; ++id) {
    weights[id] =
        std::exp((static_cast<double>(logits[id]) - largest) * static_cast<double>(params.scale));
  }
  std::vector<size_t> order(vocab);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return logits[a] > logits[b]; });
  size_t count = vocab;
  if (params.top_k > 0) count = std::min(count, static_cast<size_t>(params.top_k));
  double total = 0;
  for (size_t i = 0; i < count; ++i) total += weights[order[i]];
  if (params.top_p < 1.0F) {
    double mass = 0;
    size_t kept = 0;
    while (kept < count && mass < static_cast<double>(params.top_p) * total * (1 - 1e-9))
      mass += weights[order[kept++]];
    count = kept;
  }
  std::vector<double> kept(vocab, 0.0);
  for (size_t i = 0; i < count; ++i) {
    if (weights[order[i]] >= static_cast<double>(params.min_p)) kept[order[i]] = weights[order[i]];
  }
  return kept;
}

// Each of the numbers drawn from one row of logits with the same parameters.
void expect_right(const std::vector<float>& logits, SampleParams params, const char* what) {
  constexpr size_t kDraws = 40;
  std::mt19937_64 random(logits.size());
  std::vector<SampleParams> rows;
  std::vector<float> all;
  for (size_t i = 0; i < kDraws; ++i) {
    params.uniform = i == 0   ? 0.0
                     : i == 1 ? 1.0 - 0x1p-53
                              : static_cast<double>(random() >> 11) * 0x1p-53;
    rows.push_back(params);
    all.insert(all.end(), logits.begin(), logits.end());
  }
  const auto tokens = sampled(all, rows);
  const auto kept = kept_probabilities(logits.data(), logits.size(), params);
  const double total = std::accumulate(kept.begin(), kept.end(), 0.0);
  for (size_t i = 0; i < kDraws; ++i) {
    const auto token = static_cast<size_t>(tokens[i]);
    ASSERT_LT(token, logits.size()) << what;
    // The border of top_p may fall one token aside where rounding decides.
    const double before = std::accumulate(kept.begin(), kept.begin() + tokens[i], 0.0) / total;
    const double after = before + kept[token] / total;
    EXPECT_GT(kept[token], 0.0) << what << ": token " << token;
    EXPECT_LT(before, rows[i].uniform + 2e-4) << what;
    EXPECT_GT(after, rows[i].uniform - 2e-4) << what;
  }
}

TEST(CudaSampling, DrawsWhatTheReferenceDraws) {
  std::mt19937 random(8);
  for (const size_t vocab : {5U, 100U, 4099U, 128256U}) {
    for (const float spread : {0.5F, 3.0F, 10.0F}) {
      const auto logits = normal_floats(vocab, random, spread);
      const auto params = [](float scale, float top_p, float min_p, int32_t top_k) {
        return SampleParams{.uniform = 0,
                            .scale = scale,
                            .top_p = top_p,
                            .min_p = min_p,
                            .top_k = top_k,
                            .unused = {}};
      };
      SCOPED_TRACE(testing::Message() << vocab << " tokens, spread " << spread);
      expect_right(logits, params(1.0F, 1.0F, 0.0F, 0), "all");
      expect_right(logits, params(1.4F, 1.0F, 0.0F, 3), "top_k 3");
      expect_right(logits, params(0.7F, 1.0F, 0.0F, 50), "top_k 50");
      expect_right(logits, params(1.0F, 0.9F, 0.0F, 0), "top_p 0.9");
      expect_right(logits, params(1.0F, 0.3F, 0.0F, 0), "top_p 0.3");
      expect_right(logits, params(1.0F, 1.0F, 0.05F, 0), "min_p");
      expect_right(logits, params(0.9F, 0.8F, 0.01F, 40), "all three");
    }
  }
}

TEST(CudaSampling, OfEqualLogitsTheLowerIdsStay) {
  for (const size_t vocab : {64U, 6000U, 40000U}) {
    const std::vector<float> logits(vocab, 1.5F);
    SampleParams params = {
        .uniform = 0, .scale = 1.0F, .top_p = 1.0F, .min_p = 0, .top_k = 7, .unused = {}};
    expect_right(logits, params, "equal logits, top_k 7");
    params.top_k = 0;
    params.top_p = 0.25F;
    expect_right(logits, params, "equal logits, top_p 0.25");
    params.top_p = 1.0F;
    expect_right(logits, params, "equal logits");
  }
}

TEST(CudaSampling, EverythingIsANumberAndSomeTokenComesOut) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  const size_t vocab = 1000;
  std::vector<float> logits(6 * vocab, -infinity);
  logits[3] = 2.0F;              // the only one that can be
  logits[vocab + 9] = infinity;  // counts as the largest number
  for (size_t i = 0; i < vocab; ++i) logits[2 * vocab + i] = nan;
  logits[4 * vocab + 1] = nan;
  logits[4 * vocab + 999] = -3.0F;
  logits[5 * vocab + 500] = logits[5 * vocab + 600] = 1.0F;
  std::vector<SampleParams> params(
      6, {.uniform = 0.7, .scale = 2.0F, .top_p = 0.9F, .min_p = 0.1F, .top_k = 5, .unused = {}});
  EXPECT_EQ(sampled(logits, params), (std::vector<int32_t>{3, 9, 0, 0, 999, 600}));
}

}  // namespace
}  // namespace puna::kernels::cuda
