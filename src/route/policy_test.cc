// SPDX-License-Identifier: Apache-2.0
#include "route/policy.h"

#include <gtest/gtest.h>

#include <vector>

namespace puna::route {
namespace {

Variant base(uint64_t cost) {
  Variant variant;
  variant.name = "base";
  variant.base = true;
  variant.cost = cost;
  return variant;
}

Variant certified(std::string name, uint64_t cost, std::initializer_list<TaskFamily> families) {
  Variant variant;
  variant.name = std::move(name);
  variant.cost = cost;
  for (const TaskFamily family : families) variant.verdicts[index_of(family)] = Verdict::kPass;
  return variant;
}

Variant passing_all(std::string name, uint64_t cost) {
  Variant variant = certified(std::move(name), cost, {});
  variant.verdicts.fill(Verdict::kPass);
  variant.verdicts[index_of(TaskFamily::kOpenChat)] = Verdict::kUntested;
  return variant;
}

Classified sure(TaskFamily family) { return {.family = family, .confidence = 0.9}; }

std::vector<std::string> names(const std::vector<Variant>& variants, const Order& order) {
  std::vector<std::string> result;
  for (const uint8_t index : order.indexes()) result.push_back(variants[index].name);
  return result;
}

using Names = std::vector<std::string>;

TEST(Policy, TheCheapestCertifiedComesFirstAndOtherCertifiedOnesFollow) {
  const std::vector<Variant> variants = {
      base(160), certified("q4", 80, {TaskFamily::kCode, TaskFamily::kEdit}),
      certified("q2", 40, {TaskFamily::kEdit}), passing_all("q8", 120)};
  const Order edit = order_for(variants, sure(TaskFamily::kEdit));
  EXPECT_EQ(names(variants, edit), (Names{"q2", "q4", "q8", "base"}));
  EXPECT_EQ(edit.why, Why::kCertified);
  EXPECT_EQ(names(variants, order_for(variants, sure(TaskFamily::kCode))),
            (Names{"q4", "q8", "base"}));
}

TEST(Policy, AFamilyThatNobodyIsCertifiedForGoesToWhatPassesAll) {
  const std::vector<Variant> variants = {base(160), certified("q2", 40, {TaskFamily::kEdit}),
                                         passing_all("q8", 120)};
  const Order order = order_for(variants, sure(TaskFamily::kOpenChat));
  EXPECT_EQ(names(variants, order), (Names{"q8", "base"}));
  EXPECT_EQ(order.why, Why::kPassesAll);
}

TEST(Policy, AnUnsureFamilyGoesToWhatPassesAll) {
  const std::vector<Variant> variants = {base(160), certified("q2", 40, {TaskFamily::kEdit}),
                                         passing_all("q8", 120)};
  const Classified unsure = {.family = TaskFamily::kEdit, .confidence = kSureConfidence - 0.01};
  const Order order = order_for(variants, unsure);
  EXPECT_EQ(names(variants, order), (Names{"q8", "base"}));
  EXPECT_EQ(order.why, Why::kPassesAll);
}

TEST(Policy, WithoutAnyCertificateOnlyTheBaseIsUsed) {
  const std::vector<Variant> variants = {certified("q2", 40, {}), base(160)};
  for (size_t i = 0; i < kNumTaskFamilies; ++i) {
    const Order order = order_for(variants, sure(static_cast<TaskFamily>(i)));
    EXPECT_EQ(names(variants, order), (Names{"base"}));
    EXPECT_EQ(order.why, Why::kBase);
  }
}

TEST(Policy, RefusedAndInconclusiveAreNoPass) {
  Variant bad = passing_all("bad", 40);
  bad.verdicts[index_of(TaskFamily::kCode)] = Verdict::kRefused;
  bad.verdicts[index_of(TaskFamily::kFormat)] = Verdict::kInconclusive;
  const std::vector<Variant> variants = {base(160), bad};
  EXPECT_EQ(names(variants, order_for(variants, sure(TaskFamily::kCode))), (Names{"base"}));
  EXPECT_EQ(names(variants, order_for(variants, sure(TaskFamily::kFormat))), (Names{"base"}));
  EXPECT_EQ(names(variants, order_for(variants, sure(TaskFamily::kEdit))), (Names{"bad", "base"}));
  EXPECT_EQ(names(variants, order_for(variants, sure(TaskFamily::kOpenChat))), (Names{"base"}));
  Variant bad_chat = passing_all("bad", 40);
  bad_chat.verdicts[index_of(TaskFamily::kOpenChat)] = Verdict::kRefused;
  EXPECT_FALSE(bad_chat.passes_all());
  Variant bad_items = passing_all("bad", 40);
  bad_items.own_items_pass = false;
  EXPECT_FALSE(bad_items.passes_all());
  EXPECT_TRUE(bad_items.passes(TaskFamily::kCode));
}

// Whatever the verdicts: nothing uncertified is in the order, and the base always is.
TEST(Policy, NoUncertifiedVariantIsEverInTheOrder) {
  uint64_t state = 7;
  const auto draw = [&state](uint64_t below) {
    state = state * 6364136223846793005U + 1442695040888963407U;
    return (state >> 33U) % below;
  };
  for (int round = 0; round < 2000; ++round) {
    std::vector<Variant> variants = {base(draw(200))};
    const size_t count = draw(kMaxVariants);
    for (size_t i = 0; i < count; ++i) {
      Variant& variant = variants.emplace_back(certified("v", draw(200), {}));
      for (Verdict& verdict : variant.verdicts) verdict = static_cast<Verdict>(draw(4));
      if (draw(3) == 0) variant.verdicts.fill(Verdict::kPass);
    }
    const Classified found = {.family = static_cast<TaskFamily>(draw(kNumTaskFamilies)),
                              .confidence = static_cast<double>(draw(100)) / 100};
    const Order order = order_for(variants, found);
    bool has_base = false;
    uint64_t cost = 0;
    for (const uint8_t index : order.indexes()) {
      const Variant& variant = variants[index];
      has_base = has_base || variant.base;
      EXPECT_TRUE(variant.passes(found.family) || variant.passes_all());
      EXPECT_GE(variant.cost, cost);
      cost = variant.cost;
    }
    EXPECT_TRUE(has_base);
  }
}

TEST(Policy, ANamedVariantIsTheOnlyOne) {
  const Order order = only(2);
  ASSERT_EQ(order.count, 1U);
  EXPECT_EQ(order.variants[0], 2);
  EXPECT_EQ(order.why, Why::kNamed);
}

}  // namespace
}  // namespace puna::route
