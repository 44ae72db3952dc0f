// SPDX-License-Identifier: Apache-2.0
// A loaded model that answers a check's items: greedily, through its engine. Main thread; the
// engine runs on its own.
#pragma once

#include <atomic>
#include <cstdint>
#include <string_view>

#include "check/check_run.h"
#include "cli/loaded_model.h"
#include "engine/request.h"

namespace puna::cli {

// The date that templates with one get: a check must not depend on the day.
inline constexpr std::string_view kCheckDate = "26 Jul 2024";

// The prompt of an item. Errors: a role that the template lacks.
Result<std::vector<model::TokenId>> item_prompt(const check::Item& item,
                                                const model::ChatTemplate& chat_template,
                                                const model::Tokenizer& tokenizer);

class EngineAnswerer final : public check::Answerer {
 public:
  // The model's engine was started, and has a chat template.
  explicit EngineAnswerer(LoadedModel& model) : model_(model) {}
  // Stops the engine, which may still be about to wake its reader, who has seen the last event.
  ~EngineAnswerer() override { model_.engine().stop(); }
  EngineAnswerer(const EngineAnswerer&) = delete;
  EngineAnswerer& operator=(const EngineAnswerer&) = delete;

  Result<std::vector<std::string>> answer(std::span<const check::Item> items,
                                          int32_t together) override;

 private:
  struct Running;
  Result<> start(const check::Item& item, Running& running);

  // The engine thread counts up after each step that made tokens.
  class CountingWaker final : public engine::Waker {
   public:
    void wake() noexcept override {
      steps_.fetch_add(1, std::memory_order_release);
      steps_.notify_one();
    }
    uint32_t steps() const { return steps_.load(std::memory_order_acquire); }
    void wait(uint32_t seen) const { steps_.wait(seen, std::memory_order_acquire); }

   private:
    std::atomic<uint32_t> steps_{0};
  };

  LoadedModel& model_;
  CountingWaker waker_;
};

}  // namespace puna::cli
