// SPDX-License-Identifier: Apache-2.0
#include "engine/start_forecast.h"

#include <gtest/gtest.h>

#include <random>

namespace puna::engine {
namespace {

// A step takes 2 ms, 1 ms for each row and 0.5 ms for each prompt token.
constexpr StepTimes kTimes = {
    .ready = true, .seconds_per = {0.002, 0.001, 0.0005}, .p95_factor = 1.0};

StepOutlook outlook(int32_t rows, double target_s = 0, std::span<const int32_t> full_steps = {}) {
  return {kTimes, {.decode_rows = rows, .decode_context = 100}, target_s, 1000, full_steps};
}

TEST(StepOutlook, APromptTakesTheStepsThatThePaceLeavesIt) {
  EXPECT_DOUBLE_EQ(outlook(8).step_tokens(8, 100), 992);
  EXPECT_DOUBLE_EQ(outlook(8).prompt_s(8, 100), 0.010 + 0.050);
  // 20 ms a step leave room for 20 tokens of 0.5 ms; beside 17 rows for the least that there is.
  EXPECT_DOUBLE_EQ(outlook(8, 0.0201).step_tokens(8, 100), 20);
  EXPECT_DOUBLE_EQ(outlook(8, 0.0201).prompt_s(8, 100), 5 * 0.010 + 0.050);
  EXPECT_DOUBLE_EQ(outlook(17, 0.0201).step_tokens(17, 100), 16);
  EXPECT_DOUBLE_EQ(outlook(0, 0.0201).step_tokens(0, 100), 1000) << "nobody waits for a token";
  constexpr int32_t kFull[] = {16, 24, 32, 1000};
  EXPECT_DOUBLE_EQ(outlook(8, 0.0201, kFull).step_tokens(8, 100), 24 - 8);
  EXPECT_DOUBLE_EQ(outlook(17, 0.0201, kFull).step_tokens(17, 100), 16);
}

// Against the definition, one token after the other.
TEST(StepTimes, PromptTokensWithinATargetAreTheMostThatFit) {
  std::mt19937 random(7);
  std::uniform_real_distribution<double> share(0, 1);
  for (int i = 0; i < 2000; ++i) {
    StepTimes times = {.ready = true,
                       .seconds_per = {share(random) * 4e-3, share(random) * 1e-3,
                                       share(random) * 1e-4, 1e-7, share(random) * 1e-7},
                       .p95_factor = 0.8 + share(random)};
    if (i % 3 == 0) times.seconds_per[4] = 0;
    if (i % 7 == 0) times.seconds_per[2] = 0;
    const StepShape shape = {.decode_rows = i % 50, .prefill_tokens = i % 5, .decode_context = 50};
    const double target_s = share(random) * 0.05;
    const int64_t first = i % 4 == 0 ? 0 : i;
    int32_t most = 0;
    for (int32_t tokens = 1; tokens <= 256; ++tokens) {
      StepShape with = shape;
      with.add_prefill(first, tokens);
      if (times.p95(with) <= target_s) most = tokens;
    }
    EXPECT_EQ(times.prompt_tokens_within(shape, first, 256, target_s), most) << i;
  }
}

TEST(StartForecast, WithRoomTheyStartInOneStepAndArePromptsInTurn) {
  StartForecaster forecaster(100);
  forecaster.waits({.prompt = 40, .output = 50, .blocks = 1});
  forecaster.waits({.prompt = 60, .output = 50, .blocks = 1});
  const StartForecast forecast =
      forecaster.walk(outlook(0), {.slots = 100, .blocks = 1000, .backlog = 20});
  ASSERT_EQ(forecast.num_starts, static_cast<int64_t>(kForecastStarts));
  EXPECT_EQ(forecast.starts_s[3], 0) << "a step holds a thousand tokens";
  EXPECT_NEAR(forecast.prompts_s[0], 0.010, 0.001) << "20 tokens are computed before it";
  EXPECT_NEAR(forecast.prompts_s[1], 0.030, 0.001);
  EXPECT_NEAR(forecast.prompts_s[2], 0.060, 0.001);
  EXPECT_NEAR(forecast.prompts_s[3], 0.085, 0.002) << "one like the mean of those that wait";
  EXPECT_NEAR(forecast.starts_s[20], 0.5, 0.1) << "in the next step";
  EXPECT_EQ(forecast.rows[0], 0);
  EXPECT_EQ(forecast.rows[3], 3);
}

TEST(StartForecast, SlotsComeFromAnswersThatEndAndThoseThatStartEndToo) {
  StartForecaster forecaster(2);
  forecaster.runs({.steps = 5, .blocks = 1});
  forecaster.runs({.steps = 10, .blocks = 1});
  forecaster.waits({.prompt = 0, .output = 10, .blocks = 1});
  const StartForecast forecast = forecaster.walk(outlook(2), {.blocks = 1000});
  EXPECT_NEAR(forecast.starts_s[0], 5 * 0.004, 1e-9);
  EXPECT_NEAR(forecast.starts_s[1], 10 * 0.004, 1e-9);
  EXPECT_NEAR(forecast.starts_s[2], 15 * 0.004, 1e-9) << "when the first of them has ended";
  EXPECT_NEAR(forecast.starts_s[3], 20 * 0.004, 1e-9);
}

TEST(StartForecast, WaitsForBlocksAndCountsResumedOnesAsNoStarts) {
  StartForecaster forecaster(8);
  forecaster.runs({.steps = 3, .blocks = 4});
  forecaster.runs({.steps = 7, .blocks = 4});
  forecaster.waits({.prompt = 0, .output = 100, .blocks = 4});
  forecaster.waits({.prompt = 0, .output = 100, .blocks = 4});
  const StartForecast forecast =
      forecaster.walk(outlook(2), {.slots = 6, .blocks = 3, .resumed = 1});
  // The paused one has the blocks that come after 3 steps, so two rows run on.
  EXPECT_NEAR(forecast.starts_s[0], 7 * 0.004, 1e-9);
  EXPECT_EQ(forecast.rows[0], 1);
}

TEST(StartForecast, PaceMakesManyStepsOfAPrompt) {
  StartForecaster forecaster(9);
  for (int i = 0; i < 8; ++i) forecaster.runs({.steps = 1000, .blocks = 1});
  const StartForecast forecast =
      forecaster.walk(outlook(8, 0.0201), {.slots = 1, .blocks = 1000, .backlog = 100});
  ASSERT_GE(forecast.num_starts, 1);
  // Five steps of 20 tokens, and it starts in the sixth.
  EXPECT_NEAR(forecast.starts_s[0], 5 * 0.010 + 0.050, 1e-9);
}

TEST(StartForecast, WithoutSlotsThereIsNone) {
  StartForecaster forecaster(1);
  EXPECT_EQ(forecaster.walk(outlook(0), {.blocks = 10}).num_starts, 0);
}

}  // namespace
}  // namespace puna::engine
