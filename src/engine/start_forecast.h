// SPDX-License-Identifier: Apache-2.0
// When those that wait will start: the steps to come, walked through from one event to the next.
// Answers that end leave their slots and blocks; prompts are computed in turn, as many tokens in a
// step as the pace of the rows that run lets in; who starts becomes a row that ends in its turn.
// Engine thread; the result is a plain value that submitting threads read.
// Why: docs/decisions/010-retry-after-from-a-forecast.md.
//
//   forecaster.clear();
//   forecaster.runs({.steps = 12, .blocks = 4});              // each that runs
//   forecaster.waits({.prompt = 64, .output = 16, .blocks = 5});   // each that waits, in turn
//   StartForecast forecast = forecaster.walk(outlook, {.slots = 1, .blocks = 9});
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/latency_model.h"

namespace puna::engine {

inline constexpr size_t kForecastStarts = 64;

struct StartForecast {
  int64_t num_starts = 0;                              // 0: no idea
  double mean_blocks = 0;                              // of those that start
  std::array<double, kForecastStarts> starts_s = {};   // from now on: it leaves the queue
  std::array<double, kForecastStarts> prompts_s = {};  // prompts before its own are computed
  std::array<double, kForecastStarts> rows = {};       // that run then, before it
};

// What steps cost with so many decode rows, each with the context that rows have now.
class StepOutlook {
 public:
  // `target_s`: the tightest between two tokens of those that run; 0: none. A step holds at most
  // `max_batch_tokens`; chunks that are cut end at `full_steps`, which outlive this.
  StepOutlook(const StepTimes& times, const StepShape& decodes, double target_s,
              int32_t max_batch_tokens, std::span<const int32_t> full_steps = {})
      : times_(times),
        context_(static_cast<double>(decodes.decode_context) / std::max(1, decodes.decode_rows)),
        target_s_(target_s),
        max_batch_tokens_(max_batch_tokens),
        full_steps_(full_steps) {}

  const StepTimes& times() const { return times_; }
  StepShape shape(double rows) const;
  double decode_s(double rows) const { return times_.p50(shape(rows)); }
  // Tokens of such a prompt that a step takes.
  double step_tokens(double rows, double prompt) const;
  // What a prompt adds to its steps, in all.
  double added_s(double prompt) const;
  // From its start to its first token.
  double prompt_s(double rows, double prompt) const;

 private:
  StepTimes times_;
  double context_;
  double target_s_;
  int32_t max_batch_tokens_;
  std::span<const int32_t> full_steps_;
};

class StartForecaster {
 public:
  struct Running {
    double steps = 0;  // until it ends
    double blocks = 0;
  };
  struct Waiting {
    double prompt = 0;  // tokens
    double output = 0;  // as usual, tokens
    double blocks = 0;
  };
  struct Room {
    double slots = 0;
    double blocks = 0;
    double backlog = 0;   // tokens of started prompts that are not computed yet
    int64_t resumed = 0;  // of those that wait the first so many were paused, and are no starts
  };

  explicit StartForecaster(size_t most_running);

  void clear();
  void runs(const Running& running) { running_.push_back(running); }
  void waits(const Waiting& waiting) { waiting_.push_back(waiting); }
  bool full() const { return waiting_.size() == waiting_.capacity(); }
  // Beyond those that wait come others like their mean, or like the last ones that waited.
  StartForecast walk(const StepOutlook& outlook, Room room);

 private:
  void follow_mean();
  const Waiting& at(size_t index) const {
    return index < waiting_.size() ? waiting_[index] : mean_;
  }

  std::vector<Running> running_;
  std::vector<Waiting> waiting_;
  Waiting mean_ = {.prompt = 128, .output = 128, .blocks = 16};  // until somebody waited
};

}  // namespace puna::engine
