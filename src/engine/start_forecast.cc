// SPDX-License-Identifier: Apache-2.0
#include "engine/start_forecast.h"

#include <algorithm>
#include <cmath>

#include "engine/scheduler.h"

namespace puna::engine {

StepShape StepOutlook::shape(double rows) const {
  return {.decode_rows = static_cast<int32_t>(std::lround(rows)),
          .decode_context = std::llround(rows * context_)};
}

double StepOutlook::step_tokens(double rows, double prompt) const {
  const StepShape decodes = shape(rows);
  const int32_t most = std::max(1, max_batch_tokens_ - decodes.decode_rows);
  if (target_s_ <= 0 || decodes.decode_rows == 0) return most;
  const auto middle = static_cast<int64_t>(prompt / 2);
  int32_t within = times_.prompt_tokens_within(decodes, middle, most, target_s_);
  if (within < most) within = chunk_of_full_step(full_steps_, decodes.decode_rows, within);
  return std::max(within, std::min(most, kLeastPromptTokens));
}

double StepOutlook::added_s(double prompt) const {
  StepShape alone;
  alone.add_prefill(0, std::llround(prompt));
  return std::max(0.0, times_.p50(alone) - times_.p50({}));
}

double StepOutlook::prompt_s(double rows, double prompt) const {
  const double steps = std::max(1.0, prompt / step_tokens(rows, prompt));
  return steps * decode_s(rows) + added_s(prompt);
}

StartForecaster::StartForecaster(size_t most_running) {
  running_.reserve(most_running + kForecastStarts);
  waiting_.reserve(kForecastStarts);
}

void StartForecaster::clear() {
  running_.clear();
  waiting_.clear();
}

void StartForecaster::follow_mean() {
  if (waiting_.empty()) return;
  mean_ = {.prompt = 0, .output = 0, .blocks = 0};
  const auto count = static_cast<double>(waiting_.size());
  for (const Waiting& waiting : waiting_) {
    mean_.prompt += waiting.prompt / count;
    mean_.output += waiting.output / count;
    mean_.blocks += waiting.blocks / count;
  }
}

StartForecast StartForecaster::walk(const StepOutlook& outlook, Room room) {
  follow_mean();
  const auto later = [](const Running& a, const Running& b) { return a.steps > b.steps; };
  std::make_heap(running_.begin(), running_.end(), later);
  const double token_s = outlook.added_s(mean_.prompt) / std::max(1.0, mean_.prompt);
  StartForecast forecast = {.mean_blocks = mean_.blocks};
  double now_s = 0;
  double now_steps = 0;
  const auto rows = [&] { return static_cast<double>(running_.size()); };
  // While a slot is given from one to the next the number of rows goes to and fro.
  struct Pace {
    double rows = -1;
    double decode_s = 0;
    double step_tokens = 0;
  };
  std::array<Pace, 2> paces;  // of even and odd numbers
  double decode_s = 0;
  double step_tokens = 0;
  const auto follow_rows = [&] {
    Pace& pace = paces[running_.size() % 2];
    if (pace.rows != rows()) {
      pace = {rows(), outlook.decode_s(rows()), outlook.step_tokens(rows(), mean_.prompt)};
    }
    decode_s = pace.decode_s;
    step_tokens = pace.step_tokens;
  };
  follow_rows();
  const auto pass = [&](double steps) {
    const double tokens = std::min(room.backlog, steps * step_tokens);
    room.backlog -= tokens;
    now_steps += steps;
    now_s += steps * decode_s + tokens * token_s;
  };
  const auto end_next = [&] {
    std::pop_heap(running_.begin(), running_.end(), later);
    pass(std::max(0.0, running_.back().steps - now_steps));
    room.blocks += running_.back().blocks;
    ++room.slots;
    running_.pop_back();
    follow_rows();
  };
  for (size_t i = 0; forecast.num_starts < static_cast<int64_t>(kForecastStarts); ++i) {
    const Waiting& next = at(i);
    while ((room.slots < 1 || room.blocks < next.blocks) && !running_.empty()) end_next();
    if (room.slots < 1) break;
    // It starts in the step that has room for more than the prompts before it.
    while (room.backlog >= step_tokens) {
      const double steps = std::floor(room.backlog / step_tokens);
      if (running_.empty() || running_.front().steps >= now_steps + steps) {
        pass(steps);
      } else {
        end_next();
      }
    }
    if (static_cast<int64_t>(i) >= room.resumed) {
      const auto start = static_cast<size_t>(forecast.num_starts++);
      forecast.starts_s[start] = now_s;
      forecast.prompts_s[start] =
          now_s + room.backlog / step_tokens * decode_s + room.backlog * token_s;
      forecast.rows[start] = rows();
    }
    --room.slots;
    room.blocks -= next.blocks;
    room.backlog += next.prompt;
    const double prompt_steps = std::max(1.0, std::ceil(room.backlog / step_tokens));
    runs({.steps = now_steps + prompt_steps + next.output - 1, .blocks = next.blocks});
    std::push_heap(running_.begin(), running_.end(), later);
    follow_rows();
  }
  return forecast;
}

}  // namespace puna::engine
