// SPDX-License-Identifier: Apache-2.0
#include "check/gate.h"

#include <gtest/gtest.h>

#include <array>

#include "check/test_draws.h"

namespace puna::check {
namespace {

// `lost` losses and `gained` gains spread evenly over the items; the base is right on half of the
// others. Ten clusters in turn.
FamilyGate fed(const GateConfig& config, int64_t items, int64_t lost, int64_t gained) {
  FamilyGate gate(config, items);
  int64_t losses = 0;
  int64_t gains = 0;
  for (int64_t i = 0; i < items && !gate.decided(); ++i) {
    Outcome outcome{.cluster = static_cast<int32_t>(i % 10)};
    if ((losses + 1) * items <= (i + 1) * lost) {
      ++losses;
      outcome.base_right = true;
    } else if ((gains + 1) * items <= (i + 1) * gained) {
      ++gains;
      outcome.variant_right = true;
    } else {
      outcome.base_right = outcome.variant_right = i % 2 == 0;
    }
    gate.add(outcome);
  }
  return gate;
}

constexpr GateConfig kLate{.early_error = 0};

TEST(Gate, PassesWhatDoesNotDiffer) {
  const FamilyResult result = fed(kLate, 300, 0, 0).result();
  EXPECT_EQ(result.verdict, Verdict::kPass);
  EXPECT_EQ(result.p, 1);
  EXPECT_EQ(result.base_right, 150);
  EXPECT_FALSE(result.early);
  EXPECT_NE(result.why.find("at most"), std::string::npos);
}

TEST(Gate, RefusesWhatIsMuchWorse) {
  const FamilyResult result = fed(kLate, 300, 60, 5).result();
  EXPECT_EQ(result.verdict, Verdict::kRefuse);
  EXPECT_LT(result.p, 1e-6);
  EXPECT_GT(result.loss.low, 0.03);
}

TEST(Gate, SaysThatItDoesNotKnowAndWhatWouldHelp) {
  const FamilyResult result = fed(kLate, 300, 14, 8).result();
  EXPECT_EQ(result.verdict, Verdict::kInconclusive);
  EXPECT_NE(result.why.find("items would tell"), std::string::npos) << result.why;
}

TEST(Gate, ASmallCertainLossIsDegradedAndPasses) {
  const FamilyResult late = fed(kLate, 4000, 70, 15).result();
  std::array<FamilyResult, 3> results = {late, fed(kLate, 300, 0, 0).result(),
                                         fed(kLate, 300, 14, 8).result()};
  correct_degraded(results, 0.05);
  EXPECT_EQ(results[0].verdict, Verdict::kPass);
  EXPECT_TRUE(results[0].degraded);
  EXPECT_NEAR(results[0].p, 3 * late.p, 1e-15);
  EXPECT_FALSE(results[1].degraded);
  EXPECT_FALSE(results[2].degraded);
}

TEST(Gate, ABaseThatKnowsNothingCertifiesNothing) {
  FamilyGate gate({}, 300);
  for (int i = 0; i < 300; ++i) {
    ASSERT_FALSE(gate.decided());
    gate.add({.base_right = i % 50 == 0, .variant_right = i % 50 == 0});
  }
  EXPECT_EQ(gate.result().verdict, Verdict::kInconclusive);
  EXPECT_NE(gate.result().why.find("2.0 %"), std::string::npos) << gate.result().why;
}

TEST(Gate, ClearCasesEndEarly) {
  const FamilyGate bad = fed({}, 2000, 800, 20);
  EXPECT_TRUE(bad.decided());
  EXPECT_LT(bad.counts().items, 100);
  EXPECT_EQ(bad.result().verdict, Verdict::kRefuse);
  EXPECT_TRUE(bad.result().early);
  const FamilyGate good = fed({}, 2000, 0, 0);
  EXPECT_LT(good.counts().items, 300);
  EXPECT_EQ(good.result().verdict, Verdict::kPass);
  EXPECT_EQ(fed(kLate, 2000, 0, 0).counts().items, 2000);
}

// All losses in one template of ten: other templates may be like it, so no pass.
TEST(Gate, LossesOfOneTemplateForbidThePass) {
  FamilyGate together(kLate, 1000);
  FamilyGate spread(kLate, 1000);
  for (int32_t i = 0; i < 1000; ++i) {
    const bool lost = i < 16;
    const int32_t cluster = lost ? 3 : i % 10;
    together.add({.base_right = true, .variant_right = !lost, .cluster = cluster});
    spread.add({.base_right = true, .variant_right = !lost, .cluster = i % 10});
  }
  EXPECT_TRUE(together.result().clustered);
  EXPECT_EQ(spread.result().verdict, Verdict::kPass);
  EXPECT_EQ(together.result().verdict, Verdict::kInconclusive);
  EXPECT_EQ(together.result().loss.low, spread.result().loss.low);
  EXPECT_EQ(together.result().clusters, 10U);
}

// One template of ten lost altogether, the others not at all: certain for the family as it is.
TEST(Gate, LossesOfOneTemplateAreStillLosses) {
  FamilyGate gate({}, 1000);
  for (int32_t i = 0; !gate.decided(); ++i) {
    gate.add({.base_right = true, .variant_right = i % 10 != 3, .cluster = i % 10});
  }
  EXPECT_EQ(gate.result().verdict, Verdict::kRefuse);
}

TEST(Gate, WithoutItemsNothingIsCertain) {
  const FamilyResult result = FamilyGate({}, 100).result();
  EXPECT_EQ(result.verdict, Verdict::kInconclusive);
  EXPECT_EQ(result.loss.high, 1);
}

TEST(Gate, FewestItems) {
  const int64_t fewest = fewest_items(kLate);
  EXPECT_EQ(fed(kLate, fewest, 0, 0).result().verdict, Verdict::kPass);
  EXPECT_EQ(fed(kLate, fewest - 1, 0, 0).result().verdict, Verdict::kInconclusive);
  // (1 - delta)^n <= error needs 99; the search over the flips costs a few more.
  EXPECT_GE(fewest, 99);
  EXPECT_LE(fewest, 105);
  EXPECT_LE(fewest_items({}), 115);
}

TEST(Gate, PlansAsManyItemsAsTheToleranceNeeds) {
  EXPECT_EQ(planned_items({}), 654);  // docs/check.md
  EXPECT_EQ(planned_items(kLate), 632);
  EXPECT_EQ(planned_items({.delta = 0.02}), 1411);
  for (const double delta : {0.001, 0.01, 0.1, 0.2, 0.5}) {
    EXPECT_GE(planned_items({.delta = delta}), fewest_items({.delta = delta})) << delta;
  }
}

TEST(Gate, ControlSeesAnEngineThatChangesAnswers) {
  EXPECT_TRUE(Control{}.ok());
  EXPECT_TRUE((Control{.items = 100}.ok()));
  EXPECT_TRUE((Control{.items = 100, .lost = 2, .gained = 2}.ok()));
  EXPECT_FALSE((Control{.items = 100, .lost = 3, .gained = 3}.ok())) << "6 % flip";
  EXPECT_FALSE((Control{.items = 1000, .lost = 12, .gained = 1}.ok())) << "one-sided";
}

TEST(Gate, ScreenOnlyRefuses) {
  EXPECT_FALSE(refused_by_screen({}, {})) << "not measured";
  EXPECT_FALSE(refused_by_screen({.mean_kld = 0.01, .same_top = 0.97}, {}));
  EXPECT_TRUE(refused_by_screen({.mean_kld = 0.2, .same_top = 0.97}, {}));
  EXPECT_TRUE(refused_by_screen({.mean_kld = 0.01, .same_top = 0.8}, {}));
}

TEST(GateCalibration, ErrorsStayWithinTheirBudget) { expect_gate_calibrated(100); }
TEST(GateCalibration, PlannedItemsSuffice) { expect_planned_power(0.05, 8, 200); }

}  // namespace
}  // namespace puna::check
