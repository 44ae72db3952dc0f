// SPDX-License-Identifier: Apache-2.0
// As calibration_test.cc, with enough runs to see a tenth of a point; minutes.
#include <gtest/gtest.h>

#include "check/test_draws.h"

namespace puna::check {
namespace {

TEST(CalibrationSlow, FalsePassAndFalseRefusal) {
  for (const double delta : {0.02, 0.03, 0.05}) {
    for (const int64_t items : {120, 275, 550, 1000}) {
      for (const double flips : {delta + 0.001, 0.08, 0.2}) {
        expect_calibrated({items, flips, 0}, delta, 6000);
      }
    }
  }
}

TEST(CalibrationSlow, SequentialTestMayBeStoppedAtWill) {
  constexpr int kRuns = 4000;
  for (const double error : {0.05, 0.01}) {
    for (const double flips : {0.051, 0.08, 0.2}) {
      const Rates rates = sequential_rates({1500, flips, 0.05}, 0.05, error, kRuns);
      EXPECT_LE(rates.pass, error) << flips;
      EXPECT_LE(rates.refuse, error) << flips;
    }
  }
}

TEST(CalibrationSlow, ErrorsOfTheGateStayWithinTheirBudget) { expect_gate_calibrated(3000); }

TEST(CalibrationSlow, PlannedItemsSuffice) {
  for (const double delta : {0.03, 0.05}) {
    for (const int templates : {5, 8, 36}) expect_planned_power(delta, templates, 600);
  }
}

}  // namespace
}  // namespace puna::check
