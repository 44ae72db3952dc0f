// SPDX-License-Identifier: Apache-2.0
// Several variants of a model brought up in one process: one memory budget and ledger, one
// tokenizer, one pool of threads on which their engines' steps take turns. Main thread.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "cli/flags.h"
#include "cli/loaded_model.h"
#include "cli/opened_variants.h"
#include "engine/engine.h"
#include "engine/step_turn.h"
#include "kernels/cpu/thread_pool.h"
#include "plan/ledger.h"
#include "plan/memory_plan.h"

namespace puna::cli {

class LoadedVariants {
 public:
  // Loads all and runs the warm-up steps; no engine is started yet.
  static Result<LoadedVariants> load(const ModelConfig& config, const ModelFlags& common,
                                     const LoadSize& size);

  // The base is the first of each list.
  std::span<engine::Engine* const> engines() const { return parts_->engine_pointers; }
  std::span<const route::Variant> facts() const { return parts_->opened.facts; }
  std::span<const plan::MemoryPlan> plans() const { return parts_->plans; }
  const plan::Ledger& ledger() const { return *parts_->ledger; }
  const model::Tokenizer& tokenizer() const { return *parts_->opened.tokenizer; }
  const model::ChatTemplate& chat_template() const { return *parts_->opened.chat_template; }
  std::string memory_table() const;            // lines for a person
  std::vector<std::string> summaries() const;  // a line for each

 private:
  // On the heap: the parts hold pointers to each other. Destroyed from the last to the first.
  struct Parts {
    SteadyClock clock;
    OpenedVariants opened;
    std::vector<plan::MemoryPlan> plans;
    std::optional<plan::Ledger> ledger;
    std::unique_ptr<kernels::ThreadPool> pool;
    engine::StepTurn turn;
    std::vector<std::unique_ptr<engine::Backend>> backends;
    std::vector<std::unique_ptr<engine::Engine>> engines;
    std::vector<engine::Engine*> engine_pointers;
  };
  static Result<> plan_all(Parts& parts, const LoadSize& size,
                           std::vector<plan::PlanRequest>& requests);
  static Result<> load_one(Parts& parts, size_t index, const plan::PlanRequest& request,
                           const LoadSize& size);
  explicit LoadedVariants(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
  std::unique_ptr<Parts> parts_;
};

}  // namespace puna::cli
