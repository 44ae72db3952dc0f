// SPDX-License-Identifier: Apache-2.0
// One whole check: screen, control, then both models' answers to every family's items, until each
// family's gate has decided. Knows models only as those who answer.
//
//   std::vector<Suite> suites = generated_suites(families, {.seed = 7, .items = 500});
//   ASSIGN_OR_RETURN(std::vector<FamilyReport> screened, screen_suites(suites, config, hooks));
//   ASSIGN_OR_RETURN(CheckResult result,
//                    run_check(suites, std::move(screened), config, base, variant, hooks));
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "check/families/family.h"
#include "check/gate.h"

namespace puna::check {

// Items of one kind, that get one verdict.
struct Suite {
  std::string name;  // the family's, or "gsm8k", "human_eval" for a user's file
  Family family = Family::kArithmetic;
  std::vector<Item> items = {};
  std::string obstacle = {};  // why they can't be asked; empty: they can
};

struct ItemPlan {
  uint64_t seed = 0;
  int32_t items = 500;  // of each family
  int32_t difficulty = 1;
};
std::vector<Suite> generated_suites(std::span<const Family> families, const ItemPlan& plan);

// A model that answers; greedily, so that an answer depends on the item alone.
class Answerer {
 public:
  virtual ~Answerer() = default;
  // In the order of the items, at most `together` of them at once.
  virtual Result<std::vector<std::string>> answer(std::span<const Item> items,
                                                  int32_t together) = 0;
};

struct CheckConfig {
  GateConfig gate;
  ScreenLimits screen;
  int32_t together = 32;         // answers at once
  int32_t control_together = 5;  // the same for the base's second run
  int32_t control_items = 60;    // of all families together; 0: no control
  int32_t examples = 3;          // lost answers kept for the report, of each family
};

struct CheckHooks {
  // Divergence of the two models on a suite's answers; empty: no screen.
  std::function<Result<Screen>(const Suite& suite)> screen = {};
  // Items answered by both of those planned; `doing` is a few words.
  std::function<void(int64_t done, int64_t planned, const std::string& doing)> progress = {};
};

// An answer that the variant lost.
struct Example {
  int32_t index = 0;
  std::string question;
  std::string base_answer;
  std::string variant_answer;
  std::string why;  // the scorer's
};

// A suite's verdict; kInconclusive with a reason until it was asked.
struct FamilyReport {
  std::string name;
  Family family = Family::kArithmetic;
  int32_t version = 0;
  FamilyResult result;
  Screen screen;
  bool to_ask = true;  // it can be scored, and the screen let it through
  std::vector<Example> examples;
};

struct CheckResult {
  Control control;
  std::vector<FamilyReport> families;  // in the order of the suites
};

// The first part, which needs no answers: what can't be asked, and what divergence refuses.
Result<std::vector<FamilyReport>> screen_suites(std::span<const Suite> suites,
                                                const CheckConfig& config, const CheckHooks& hooks);

// The rest. Errors: those of the answerers. A control that fails is a result: nothing else is asked
// then, and every family stays inconclusive.
Result<CheckResult> run_check(std::span<const Suite> suites, std::vector<FamilyReport> screened,
                              const CheckConfig& config, Answerer& base, Answerer& variant,
                              const CheckHooks& hooks);

// What a script learns, the worst of all families. Values are exit codes.
enum class CheckOutcome : int {
  kPass = 0,
  kDegraded = 3,      // all pass, at least one with a certain loss
  kInconclusive = 4,  // none refused, at least one not certified
  kRefuse = 5,        // at least one refused
  kNoControl = 6,     // the engine doesn't repeat itself: nothing can be said
};
CheckOutcome outcome_of(const CheckResult& result);
std::string_view name(CheckOutcome outcome);  // "pass", "degraded and pass", …

}  // namespace puna::check
