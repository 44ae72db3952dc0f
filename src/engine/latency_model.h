// SPDX-License-Identifier: Apache-2.0
// How long a step takes, from what is in it. StepTimes is the answer, a plain value that plan() and
// any thread may use; LatencyModel learns it on the engine thread: weighted least squares over
// relative errors with forgetting, non-negative coefficients, and outliers (stalls) cut down to
// size. What calibration saw keeps a small weight for ever, so that a night of decode steps doesn't
// make it forget what a prompt costs.
//
//   model.observe({.decode_rows = 4, .decode_context = 900}, 0.011);
//   if (model.times().ready) wait_s = model.times().p95(shape);
//
// Why these five terms: docs/decisions/ (fairness and step time).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace puna::engine {

struct StepShape {
  int32_t decode_rows = 0;
  int32_t prefill_tokens = 0;
  int64_t decode_context = 0;   // positions that decode rows read
  int64_t prefill_context = 0;  // positions that each prompt token reads, summed

  void add_decode(int64_t position) {
    ++decode_rows;
    decode_context += position + 1;
  }
  void add_prefill(int64_t first_position, int64_t tokens) {
    prefill_tokens += static_cast<int32_t>(tokens);
    prefill_context += tokens * first_position + tokens * (tokens + 1) / 2;
  }
};

inline constexpr size_t kStepTerms = 5;
using StepTerms = std::array<double, kStepTerms>;

struct StepTimes {
  bool ready = false;          // false: nothing is known yet, and predictions are 0
  StepTerms seconds_per = {};  // step, decode row, prompt token, decode and prefill position
  double p50_factor = 1.0;     // measured over fitted, half of the steps are below
  double p95_factor = 1.2;

  double fitted(const StepShape& shape) const;
  double p50(const StepShape& shape) const { return fitted(shape) * p50_factor; }
  double p95(const StepShape& shape) const { return fitted(shape) * p95_factor; }
  // The most prompt tokens from `first_position` on, at most `most`, with which the step stays
  // within `target_s` in 95 of 100 cases.
  int32_t prompt_tokens_within(const StepShape& shape, int64_t first_position, int32_t most,
                               double target_s) const;
};

class LatencyModel {
 public:
  static constexpr int kReadyAfter = 16;      // steps
  static constexpr int kReadyCalibrated = 8;  // of shapes that were chosen to differ

  void observe(const StepShape& shape, double seconds);
  // What was observed so far is kept as the anchor, and is enough from kReadyCalibrated steps on.
  void end_calibration();
  const StepTimes& times() const { return times_; }

 private:
  struct Sums {  // of weighted products: the normal equations
    std::array<StepTerms, kStepTerms> xx = {};
    StepTerms xy = {};
  };
  double weight(double fitted, double seconds) const;
  void fit(int sweeps);
  void track_factors(double ratio);

  Sums recent_;
  Sums anchor_;
  StepTimes times_;
  int64_t observed_ = 0;
};

// Follows one quantile of a stream of positive numbers, with a fixed memory: each one above pulls
// it up by a little, each one below pulls it down, in the ratio that balances at the quantile.
inline double follow_quantile(double estimate, double seen, double quantile, double rate) {
  return estimate * (1.0 + rate * (seen > estimate ? quantile : quantile - 1.0));
}

}  // namespace puna::engine
