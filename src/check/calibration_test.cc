// SPDX-License-Identifier: Apache-2.0
// Do the tests err as rarely as they say? calibration_slow_test.cc asks more thoroughly.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/sanitizers.h"
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

// The chance to pass, summed over what can be counted: no simulation, no noise.
double exact_power(const Truth& truth, double delta) {
  const auto log_factorial = [](int64_t n) { return std::lgamma(static_cast<double>(n) + 1); };
  const double share = truth.flips / 2;
  const double mean = static_cast<double>(truth.items) * share;
  const auto low = static_cast<int64_t>(std::max(0.0, mean - 4.5 * std::sqrt(mean)));
  const auto high = static_cast<int64_t>(mean + 4.5 * std::sqrt(mean)) + 1;
  double power = 0;
  for (int64_t lost = low; lost <= high; ++lost) {
    for (int64_t gained = low; gained <= high; ++gained) {
      const int64_t rest = truth.items - lost - gained;
      const double chance =
          std::exp(log_factorial(truth.items) - log_factorial(lost) - log_factorial(gained) -
                   log_factorial(rest) + static_cast<double>(lost + gained) * std::log(share) +
                   static_cast<double>(rest) * std::log(1 - truth.flips));
      if (chance > 1e-7 && refutes_at_least({truth.items, lost, gained}, delta, 0.05)) {
        power += chance;
      }
    }
  }
  return power;
}

TEST(Calibration, PowerAtThePlannedSizes) {
  for (const auto& [flips, delta] :
       {std::pair(0.04, 0.05), std::pair(0.04, 0.03), std::pair(0.04, 0.02), std::pair(0.08, 0.05),
        std::pair(0.08, 0.03), std::pair(0.20, 0.05), std::pair(0.20, 0.03)}) {
    const int64_t items = items_for_power(flips, 0, delta, 0.05, 0.8);
    if (PUNA_SANITIZED && items > 400) continue;
    const double power = exact_power({items, flips, 0}, delta);
    EXPECT_GE(power, 0.8) << items;
    EXPECT_LE(power, 0.86) << items;  // no more than it takes
    EXPECT_NEAR(power, exact_pass_power(items, flips, 0, delta, 0.05), 0.06) << items;
  }
  EXPECT_GE(fixed_rates({1000, 0.12, 0.08}, 0.03, 300).refuse, 0.95);
}

// The sizes of the normal approximation, without its correction, are a little short.
TEST(Calibration, NormalSizesHaveLessPower) {
  EXPECT_NEAR(exact_power({275, 0.04, 0}, 0.03), 0.73, 0.01);
  EXPECT_NEAR(exact_power({550, 0.08, 0}, 0.03), 0.78, 0.01);
  EXPECT_NEAR(exact_power({1374, 0.20, 0}, 0.03), 0.798, 0.005);
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
