// SPDX-License-Identifier: Apache-2.0
#include "check/check_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace puna::check {
namespace {

FamilyReport report_before(const Suite& suite, const GateConfig& gate) {
  FamilyReport report;
  report.name = suite.name;
  report.family = suite.family;
  report.version = version(suite.family);
  report.result = FamilyGate(gate, static_cast<int64_t>(suite.items.size())).result();
  report.result.why = suite.obstacle;
  if (suite.family == Family::kOpenChat) {
    report.result.why = "there is no right answer: divergence alone never certifies";
  } else if (const Result<> scorable = can_score(suite.family); !scorable.ok()) {
    report.result.why = scorable.error().message();
  }
  report.to_ask = report.result.why.empty();
  return report;
}

void refuse(FamilyReport& report, const ScreenLimits& limits) {
  report.to_ask = false;
  report.result.verdict = Verdict::kRefuse;
  report.result.why = fmt::format(
      "refused by divergence alone: {:.3f} nats on right answers ({:g} are allowed), {:.1f} % same "
      "likeliest token ({:g} % at least)",
      report.screen.mean_kld, limits.mean_kld, 100 * report.screen.same_top, 100 * limits.same_top);
}

std::string question_of(const Item& item) {
  return item.messages.empty() ? "" : item.messages.back().content;
}

class Run {
 public:
  Run(std::span<const Suite> suites, std::vector<FamilyReport> screened, const CheckConfig& config,
      Answerer& base, Answerer& variant, const CheckHooks& hooks)
      : suites_(suites),
        config_(config),
        base_(base),
        variant_(variant),
        hooks_(hooks),
        answered_(suites.size()) {
    CHECK_EQ(suites.size(), screened.size());
    result_.families = std::move(screened);
  }

  Result<CheckResult> all();

 private:
  Result<> control();
  Result<> ask(size_t index);
  Result<> ask_batch(size_t index, std::span<const Item> items, FamilyGate& gate);
  Result<std::vector<std::string>> base_answers(size_t index, size_t first, size_t count);
  bool asked(size_t index) const { return result_.families[index].to_ask; }
  void finish();
  void tell(const std::string& doing) const {
    if (hooks_.progress) hooks_.progress(done_, planned_, doing);
  }

  std::span<const Suite> suites_;
  const CheckConfig& config_;
  Answerer& base_;
  Answerer& variant_;
  const CheckHooks& hooks_;
  CheckResult result_;
  std::vector<std::vector<std::string>> answered_;  // by the base in the control, by suite
  int64_t done_ = 0;
  int64_t planned_ = 0;
};

// The base twice, in batches of another size. Its first answers count in the check itself.
Result<> Run::control() {
  int64_t families = 0;
  for (size_t i = 0; i < suites_.size(); ++i) families += asked(i) ? 1 : 0;
  if (families == 0 || config_.control_items == 0) return Ok{};
  const auto each = static_cast<size_t>((config_.control_items + families - 1) / families);
  for (size_t i = 0; i < suites_.size(); ++i) {
    if (!asked(i)) continue;
    tell(suites_[i].name + ": control");
    const std::span<const Item> items(suites_[i].items.data(),
                                      std::min(each, suites_[i].items.size()));
    ASSIGN_OR_RETURN(answered_[i], base_.answer(items, config_.together));
    ASSIGN_OR_RETURN(const std::vector<std::string> again,
                     base_.answer(items, config_.control_together));
    for (size_t item = 0; item < items.size(); ++item) {
      Control& control = result_.control;
      ++control.items;
      if (again[item] == answered_[i][item]) continue;
      ++control.texts_differ;
      const bool first = score(items[item], answered_[i][item]).correct;
      const bool second = score(items[item], again[item]).correct;
      control.lost += first && !second ? 1 : 0;
      control.gained += !first && second ? 1 : 0;
    }
  }
  return Ok{};
}

Result<std::vector<std::string>> Run::base_answers(size_t index, size_t first, size_t count) {
  const std::vector<std::string>& known = answered_[index];
  std::vector<std::string> answers;
  const size_t have = std::min(known.size(), first + count);
  for (size_t i = first; i < have; ++i) answers.push_back(known[i]);
  if (answers.size() == count) return answers;
  const std::span<const Item> items(suites_[index].items);
  ASSIGN_OR_RETURN(std::vector<std::string> rest,
                   base_.answer(items.subspan(first + answers.size(), count - answers.size()),
                                config_.together));
  std::move(rest.begin(), rest.end(), std::back_inserter(answers));
  return answers;
}

Result<> Run::ask_batch(size_t index, std::span<const Item> items, FamilyGate& gate) {
  const auto first = static_cast<size_t>(gate.counts().items);
  ASSIGN_OR_RETURN(const std::vector<std::string> base, base_answers(index, first, items.size()));
  ASSIGN_OR_RETURN(const std::vector<std::string> variant,
                   variant_.answer(items, config_.together));
  FamilyReport& report = result_.families[index];
  for (size_t i = 0; i < items.size() && !gate.decided(); ++i) {
    const bool base_right = score(items[i], base[i]).correct;
    // An equal answer is equally right: no need to run code twice.
    const Score of = base[i] == variant[i] ? Score{.correct = base_right, .why = ""}
                                           : score(items[i], variant[i]);
    gate.add({base_right, of.correct, items[i].cluster});
    const bool lost = base_right && !of.correct;
    if (lost && report.examples.size() < static_cast<size_t>(config_.examples)) {
      report.examples.push_back(
          {items[i].index, question_of(items[i]), base[i], variant[i], of.why});
    }
  }
  return Ok{};
}

Result<> Run::ask(size_t index) {
  const std::span<const Item> items(suites_[index].items);
  FamilyGate gate(config_.gate, static_cast<int64_t>(items.size()));
  const int64_t before = done_;
  while (!gate.decided()) {
    const auto first = static_cast<size_t>(gate.counts().items);
    const size_t count = std::min(items.size() - first, static_cast<size_t>(config_.together));
    RETURN_IF_ERROR(ask_batch(index, items.subspan(first, count), gate));
    done_ = before + gate.counts().items;
    tell(suites_[index].name);
  }
  planned_ -= static_cast<int64_t>(items.size()) - gate.counts().items;  // an early end
  result_.families[index].result = gate.result();
  return Ok{};
}

// Holm over those families that have a p-value.
void Run::finish() {
  std::vector<FamilyResult> tested;
  for (size_t i = 0; i < suites_.size(); ++i) {
    if (asked(i)) tested.push_back(result_.families[i].result);
  }
  correct_degraded(tested, config_.gate.error);
  size_t next = 0;
  for (size_t i = 0; i < suites_.size(); ++i) {
    if (asked(i)) result_.families[i].result = std::move(tested[next++]);
  }
}

Result<CheckResult> Run::all() {
  for (size_t i = 0; i < suites_.size(); ++i) {
    if (asked(i)) planned_ += static_cast<int64_t>(suites_[i].items.size());
  }
  RETURN_IF_ERROR(control());
  if (!result_.control.ok()) {
    for (size_t i = 0; i < suites_.size(); ++i) {
      if (asked(i)) result_.families[i].result.why = "the base doesn't repeat its own answers";
    }
    return std::move(result_);
  }
  for (size_t i = 0; i < suites_.size(); ++i) {
    if (asked(i)) RETURN_IF_ERROR(ask(i));
  }
  finish();
  return std::move(result_);
}

}  // namespace

std::vector<Suite> generated_suites(std::span<const Family> families, const ItemPlan& plan) {
  std::vector<Suite> suites;
  for (const Family family : families) {
    Suite suite{.name = std::string(name(family)), .family = family};
    for (int32_t index = 0; index < plan.items; ++index) {
      suite.items.push_back(make_item(
          {.family = family, .seed = plan.seed, .index = index, .difficulty = plan.difficulty}));
    }
    suites.push_back(std::move(suite));
  }
  return suites;
}

Result<std::vector<FamilyReport>> screen_suites(std::span<const Suite> suites,
                                                const CheckConfig& config,
                                                const CheckHooks& hooks) {
  std::vector<FamilyReport> reports;
  for (const Suite& suite : suites) {
    FamilyReport report = report_before(suite, config.gate);
    if (hooks.screen && suite.obstacle.empty()) {
      if (hooks.progress) hooks.progress(0, 0, suite.name + ": divergence");
      ASSIGN_OR_RETURN(report.screen, hooks.screen(suite));
      if (refused_by_screen(report.screen, config.screen)) refuse(report, config.screen);
    }
    reports.push_back(std::move(report));
  }
  return reports;
}

Result<CheckResult> run_check(std::span<const Suite> suites, std::vector<FamilyReport> screened,
                              const CheckConfig& config, Answerer& base, Answerer& variant,
                              const CheckHooks& hooks) {
  return Run(suites, std::move(screened), config, base, variant, hooks).all();
}

CheckOutcome outcome_of(const CheckResult& result) {
  if (!result.control.ok()) return CheckOutcome::kNoControl;
  // Divergence alone certifies nothing, so without a scored family there is no pass.
  const bool any_scored =
      std::any_of(result.families.begin(), result.families.end(),
                  [](const FamilyReport& family) { return family.family != Family::kOpenChat; });
  CheckOutcome worst = any_scored ? CheckOutcome::kPass : CheckOutcome::kInconclusive;
  const auto at_least = [&](CheckOutcome outcome) { worst = std::max(worst, outcome); };
  for (const FamilyReport& family : result.families) {
    const bool only_screened = family.family == Family::kOpenChat;
    switch (family.result.verdict) {
      case Verdict::kPass:
        if (family.result.degraded) at_least(CheckOutcome::kDegraded);
        break;
      case Verdict::kRefuse:
        at_least(CheckOutcome::kRefuse);
        break;
      case Verdict::kInconclusive:
        if (!only_screened) at_least(CheckOutcome::kInconclusive);
        break;
    }
  }
  return worst;
}

std::string_view name(CheckOutcome outcome) {
  switch (outcome) {
    case CheckOutcome::kPass:
      return "pass";
    case CheckOutcome::kDegraded:
      return "degraded and pass";
    case CheckOutcome::kInconclusive:
      return "inconclusive";
    case CheckOutcome::kRefuse:
      return "refuse";
    case CheckOutcome::kNoControl:
      return "no control";
  }
  return "";
}

}  // namespace puna::check
