// SPDX-License-Identifier: Apache-2.0
// Do the tests err as rarely as they say? calibration_slow_test.cc asks more thoroughly.
#include <gtest/gtest.h>

#include "check/sequential_test.h"
#include "check/test_draws.h"

namespace puna::check {
namespace {

TEST(Calibration, FalsePassAndFalseRefusal) {
  for (const Truth& truth : {Truth{275, 0.04, 0}, Truth{550, 0.08, 0}, Truth{150, 0.031, 0}}) {
    expect_calibrated(truth, 0.03, 1500);
  }
  for (const Truth& truth : {Truth{99, 0.055, 0}, Truth{198, 0.08, 0}, Truth{495, 0.20, 0}}) {
    expect_calibrated(truth, 0.05, 1500);
  }
}

TEST(Calibration, PowerAtThePlannedSizes) {
  struct Plan {
    Truth truth;
    double delta;
  };
  // 80 % by the normal approximation; few flips leave the exact test a little less.
  for (const Plan& plan : {Plan{{550, 0.08, 0}, 0.03}, Plan{{1374, 0.20, 0}, 0.03},
                           Plan{{495, 0.20, 0}, 0.05}, Plan{{198, 0.08, 0}, 0.05}}) {
    EXPECT_GE(fixed_rates(plan.truth, plan.delta, 600).pass, 0.8 - 0.05) << plan.truth.items;
  }
  EXPECT_GE(fixed_rates({1000, 0.12, 0.08}, 0.03, 300).refuse, 0.95);
}

TEST(Calibration, SequentialTestMayBeStoppedAtWill) {
  constexpr int kRuns = 300;
  const Rates at_delta = sequential_rates({1000, 0.08, 0.05}, 0.05, 0.05, kRuns);
  EXPECT_LE(at_delta.pass, 0.05);
  EXPECT_LE(at_delta.refuse, 0.05);
  const Rates good = sequential_rates({1000, 0.08, 0}, 0.05, 0.05, kRuns);
  EXPECT_GE(good.pass, 0.97);
  EXPECT_EQ(good.refuse, 0);
  EXPECT_GE(sequential_rates({1000, 0.12, 0.08}, 0.03, 0.05, kRuns).refuse, 0.95);
}

TEST(Calibration, AnytimeIntervalHoldsTheTruthWheneverItIsTaken) {
  constexpr int kRuns = 300;
  int missed = 0;
  for (int run = 0; run < kRuns; ++run) {
    Draw draw({1000, 0.1, 0.04}, static_cast<uint64_t>(run) + 11);
    PairedCounts counts;
    bool out = false;
    while (counts.items < 1000) {
      draw.next(counts);
      if (counts.items % 20 != 0) continue;
      const Interval interval = anytime_interval(counts, 0.05);
      EXPECT_LE(interval.low, counts.loss());
      EXPECT_GE(interval.high, counts.loss());
      out = out || interval.low > 0.04 || interval.high < 0.04;
    }
    missed += out ? 1 : 0;
  }
  EXPECT_LE(missed, kRuns / 10);
}

}  // namespace
}  // namespace puna::check
