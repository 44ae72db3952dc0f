// SPDX-License-Identifier: Apache-2.0
// Do the tests err as rarely as they say? calibration_slow_test.cc asks more thoroughly.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

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

// Every outcome of `items` pairs that counts for something, with its probability.
template <typename Use>
void for_each_outcome(int64_t items, double lost_share, double gained_share, Use use) {
  const auto log_factorial = [](int64_t n) { return std::lgamma(static_cast<double>(n) + 1); };
  const auto reach = [&](double share, double deviations) {
    const double mean = static_cast<double>(items) * share;
    return static_cast<int64_t>(std::max(0.0, mean + deviations * std::sqrt(mean) + deviations));
  };
  for (int64_t lost = reach(lost_share, -5); lost <= reach(lost_share, 5); ++lost) {
    for (int64_t gained = reach(gained_share, -5); gained <= reach(gained_share, 5); ++gained) {
      const int64_t rest = items - lost - gained;
      const double chance =
          std::exp(log_factorial(items) - log_factorial(lost) - log_factorial(gained) -
                   log_factorial(rest) + static_cast<double>(lost) * std::log(lost_share) +
                   static_cast<double>(gained) * std::log(gained_share) +
                   static_cast<double>(rest) * std::log(1 - lost_share - gained_share));
      if (chance > 1e-7) use(PairedCounts{items, lost, gained}, chance);
    }
  }
}

// The chance to pass without any loss, summed over what can be counted: no simulation, no noise.
double exact_power(const Truth& truth, double delta) {
  double power = 0;
  for_each_outcome(truth.items, truth.flips / 2, truth.flips / 2,
                   [&](const PairedCounts& counts, double chance) {
                     if (refutes_at_least(counts, delta, 0.05)) power += chance;
                   });
  return power;
}

// No test whose error is 5 % has more power than this: the likelihood ratio's (Neyman and Pearson)
// against those shares with a loss of delta that are hardest to tell from none.
double power_bound(const Truth& truth, double delta) {
  double bound = 1;
  for (int step = 1; step <= 20; ++step) {
    const double gained = truth.flips / 2 * step / 20;
    const double lost = gained + delta;
    struct Weighed {
      double ratio;  // of the probability at a loss of delta to that without
      double chance;
    };
    std::vector<Weighed> outcomes;
    for_each_outcome(truth.items, truth.flips / 2, truth.flips / 2,
                     [&](const PairedCounts& counts, double chance) {
                       const int64_t rest = counts.items - counts.lost - counts.gained;
                       const double log_ratio =
                           static_cast<double>(counts.lost) * std::log(2 * lost / truth.flips) +
                           static_cast<double>(counts.gained) * std::log(2 * gained / truth.flips) +
                           static_cast<double>(rest) *
                               std::log((1 - lost - gained) / (1 - truth.flips));
                       outcomes.push_back({std::exp(log_ratio), chance});
                     });
    std::sort(outcomes.begin(), outcomes.end(),
              [](const Weighed& a, const Weighed& b) { return a.ratio < b.ratio; });
    double error = 0;
    double power = 0;
    for (const Weighed& outcome : outcomes) {
      const double more = outcome.ratio * outcome.chance;
      const double part = more > 0 ? std::min(1.0, (0.05 - error) / more) : 1.0;
      power += part * outcome.chance;
      error += part * more;
      if (part < 1) break;
    }
    bound = std::min(bound, power);
  }
  return bound;
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

// With the sizes of the normal approximation, 6.18 * flips / delta^2, no valid test has the power
// that it promises; this one is about as good as any.
TEST(Calibration, NoTestHasThePowerOfTheNormalSizes) {
  struct Size {
    int64_t items;
    double flips;
    double delta;
    double bound;
    double power;
  };
  for (const Size& size :
       {Size{618, 0.04, 0.02, 0.776, 0.76}, Size{275, 0.04, 0.03, 0.753, 0.73},
        Size{99, 0.04, 0.05, 0.697, 0.63}, Size{550, 0.08, 0.03, 0.788, 0.78},
        Size{198, 0.08, 0.05, 0.769, 0.757}, Size{495, 0.20, 0.05, 0.797, 0.79}}) {
    if (PUNA_SANITIZED && size.items > 400) continue;
    const Truth truth{size.items, size.flips, 0};
    const double bound = power_bound(truth, size.delta);
    EXPECT_LT(bound, 0.8) << size.items;
    EXPECT_NEAR(bound, size.bound, 0.002) << size.items;
    EXPECT_NEAR(exact_power(truth, size.delta), size.power, 0.01) << size.items;
  }
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
