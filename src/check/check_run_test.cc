// SPDX-License-Identifier: Apache-2.0
// A whole check with answerers whose ability is known, through real items and scorers.
#include "check/check_run.h"

#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <set>

#include "check/report.h"

namespace puna::check {
namespace {

// Right answers, but for the items that `fails` names.
class FakeAnswerer final : public Answerer {
 public:
  using Fails = std::function<bool(const Item& item, int32_t together)>;
  explicit FakeAnswerer(Fails fails) : fails_(std::move(fails)) {}
  Result<std::vector<std::string>> answer(std::span<const Item> items, int32_t together) override {
    std::vector<std::string> answers;
    for (const Item& item : items) {
      answers.push_back(fails_(item, together) ? "I don't know <that> & more." : item.oracle);
    }
    asked += static_cast<int64_t>(items.size());
    return answers;
  }
  int64_t asked = 0;

 private:
  Fails fails_;
};

bool base_fails(const Item& item, int32_t) { return item.index % 3 == 0; }

// Loses every fourth arithmetic answer, and no other.
bool bad_at_arithmetic(const Item& item, int32_t together) {
  return base_fails(item, together) || (item.family == Family::kArithmetic && item.index % 4 == 1);
}

constexpr std::array<Family, 2> kTwo = {Family::kArithmetic, Family::kEdit};

struct Ran {
  CheckResult result;
  int64_t base_asked = 0;
  int64_t variant_asked = 0;
};

Ran ran(const std::vector<Suite>& suites, FakeAnswerer::Fails variant_fails,
        const CheckHooks& hooks = {}, FakeAnswerer::Fails fails_of_base = base_fails,
        const CheckConfig& config = {}) {
  FakeAnswerer base(std::move(fails_of_base));
  FakeAnswerer variant(std::move(variant_fails));
  auto screened = screen_suites(suites, config, hooks);
  EXPECT_TRUE(screened.ok());
  auto result = run_check(suites, std::move(*screened), config, base, variant, hooks);
  EXPECT_TRUE(result.ok());
  return {std::move(result).value(), base.asked, variant.asked};
}

TEST(CheckRun, ABaseAgainstItselfPasses) {
  const auto suites = generated_suites(kTwo, {.seed = 5, .items = 300});
  const Ran run = ran(suites, base_fails);
  EXPECT_EQ(outcome_of(run.result), CheckOutcome::kPass);
  EXPECT_EQ(run.result.control.items, 60);
  EXPECT_EQ(run.result.control.texts_differ, 0);
  for (const FamilyReport& family : run.result.families) {
    EXPECT_EQ(family.result.verdict, Verdict::kPass) << family.name << ": " << family.result.why;
    EXPECT_NEAR(static_cast<double>(family.result.base_right) /
                    static_cast<double>(family.result.counts.items),
                2.0 / 3, 0.01);
    EXPECT_TRUE(family.examples.empty());
  }
  // The control's first answers are not asked for again.
  EXPECT_EQ(run.base_asked, run.variant_asked + 60);
}

TEST(CheckRun, TheVerdictDiffersBetweenFamilies) {
  const auto suites = generated_suites(kTwo, {.seed = 5, .items = 300});
  const Ran run = ran(suites, bad_at_arithmetic);
  const FamilyReport& arithmetic = run.result.families[0];
  EXPECT_EQ(arithmetic.result.verdict, Verdict::kRefuse);
  EXPECT_TRUE(arithmetic.result.degraded);
  EXPECT_TRUE(arithmetic.result.early);
  EXPECT_LT(arithmetic.result.counts.items, 200);
  EXPECT_EQ(arithmetic.examples.size(), 3U);
  EXPECT_FALSE(arithmetic.examples[0].why.empty());
  EXPECT_EQ(run.result.families[1].result.verdict, Verdict::kPass);
  EXPECT_EQ(outcome_of(run.result), CheckOutcome::kRefuse);
}

TEST(CheckRun, AnEngineThatChangesAnswersStopsTheCheck) {
  const auto suites = generated_suites(kTwo, {.seed = 5, .items = 300});
  const auto unsteady = [](const Item& item, int32_t together) {
    return base_fails(item, together) || (together < 10 && item.index % 5 == 1);
  };
  const Ran run = ran(suites, base_fails, {}, unsteady);
  EXPECT_EQ(outcome_of(run.result), CheckOutcome::kNoControl);
  EXPECT_EQ(run.variant_asked, 0);
  EXPECT_EQ(run.result.families[0].result.verdict, Verdict::kInconclusive);
}

TEST(CheckRun, ScreenRefusesWithoutAsking) {
  const auto suites = generated_suites(kTwo, {.seed = 5, .items = 300});
  CheckHooks hooks;
  std::set<std::string> told;
  hooks.screen = [](const Suite& suite) {
    const bool bad = suite.family == Family::kArithmetic;
    return Result<Screen>(Screen{.mean_kld = bad ? 0.4 : 0.001, .same_top = 0.99, .tokens = 100});
  };
  hooks.progress = [&](int64_t, int64_t, const std::string& doing) { told.insert(doing); };
  const Ran run = ran(suites, base_fails, hooks);
  EXPECT_EQ(run.result.families[0].result.verdict, Verdict::kRefuse);
  EXPECT_EQ(run.result.families[0].result.counts.items, 0);
  EXPECT_NE(run.result.families[0].result.why.find("0.400 nats"), std::string::npos);
  EXPECT_EQ(run.result.families[1].result.verdict, Verdict::kPass);
  EXPECT_TRUE(told.contains("edit: control"));
  EXPECT_FALSE(told.contains("arithmetic: control"));
}

TEST(CheckRun, OpenChatAndObstaclesStayUncertified) {
  constexpr std::array<Family, 1> kOpen = {Family::kOpenChat};
  auto suites = generated_suites(kOpen, {.seed = 5, .items = 10});
  EXPECT_EQ(outcome_of(ran(suites, base_fails).result), CheckOutcome::kInconclusive);
  auto more = generated_suites(kTwo, {.seed = 5, .items = 300});
  more[0].obstacle = "too long";
  const Ran run = ran(more, base_fails);
  EXPECT_EQ(run.result.families[0].result.why, "too long");
  EXPECT_EQ(outcome_of(run.result), CheckOutcome::kInconclusive);
  EXPECT_EQ(run.result.families[1].result.verdict, Verdict::kPass);
}

Certificate head_of_report() {
  Certificate head;
  head.base = "base.gguf";
  head.variant = "<variant>.gguf";
  head.base_hash = std::string(64, '0');
  head.variant_hash = std::string(64, '1');
  head.delta = 0.03;
  head.error = 0.05;
  head.early_error = 0.01;
  return head;
}

TEST(Report, TheSameSeedGivesTheSameBytes) {
  const auto suites = generated_suites(kTwo, {.seed = 5, .items = 300});
  std::string html;
  std::string table;
  for (const int32_t together : {32, 7}) {
    CheckConfig config;
    config.together = together;
    const Ran run = ran(suites, bad_at_arithmetic, {}, base_fails, config);
    const Certificate certificate = certificate_of(head_of_report(), run.result);
    const std::string page = report_html(certificate, run.result);
    EXPECT_TRUE(html.empty() || html == page) << "whatever the batch";
    html = page;
    table = report_table(certificate, run.result);
  }
  for (const char* part : {"1 of 2 task families pass", "must not use the variant", "<svg",
                           "&lt;variant&gt;", "&lt;that&gt; &amp; more", "How to read it",
                           "Answers that were lost", "arithmetic: REFUSE", "edit: PASS"}) {
    EXPECT_NE(html.find(part), std::string::npos) << part;
  }
  EXPECT_EQ(html.find("<script"), std::string::npos);
  EXPECT_EQ(html.find("http"), std::string::npos) << "loads nothing";
  EXPECT_NE(table.find("REFUSE"), std::string::npos);
  EXPECT_NE(table.find("control: the base asked twice, 0 of 60"), std::string::npos) << table;
}

}  // namespace
}  // namespace puna::check
