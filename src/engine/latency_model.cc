// SPDX-License-Identifier: Apache-2.0
#include "engine/latency_model.h"

#include <algorithm>
#include <cmath>

namespace puna::engine {
namespace {

constexpr double kKeep = 0.995;        // per step: a memory of 200 steps
constexpr double kAnchorSteps = 10.0;  // what calibration weighs against those
constexpr double kOutlier = 0.3;       // relative error from which a step's pull stays the same
constexpr double kQuantileRate = 0.02;
constexpr double kFactorFloor = 0.25;   // factors stay within [0.25, 8]: a quantile that
constexpr double kFactorCeiling = 8.0;  // wandered off in an odd phase must be able to return
constexpr double kShortestStepS = 1e-9;
constexpr int kSweeps = 4;  // warm start: the last step's fit is near
constexpr int kCalibrationSweeps = 400;

StepTerms terms(const StepShape& shape) {
  return {1.0, static_cast<double>(shape.decode_rows), static_cast<double>(shape.prefill_tokens),
          static_cast<double>(shape.decode_context), static_cast<double>(shape.prefill_context)};
}

}  // namespace

double StepTimes::fitted(const StepShape& shape) const {
  const StepTerms x = terms(shape);
  double seconds = 0;
  for (size_t i = 0; i < kStepTerms; ++i) seconds += x[i] * seconds_per[i];
  return seconds;
}

int32_t StepTimes::prompt_tokens_within(const StepShape& shape, int64_t first_position,
                                        int32_t most, double target_s) const {
  const auto fits = [&](int32_t tokens) {
    StepShape with = shape;
    with.add_prefill(first_position, tokens);
    return p95(with) <= target_s;
  };
  if (fits(most)) return most;
  // The root of what is left of the target, then to the whole number that fits() means.
  const double square = seconds_per[4] / 2;
  const double each = seconds_per[2] + seconds_per[4] * (static_cast<double>(first_position) + 0.5);
  const double left = target_s / p95_factor - fitted(shape);
  // 0 counts as fitting: the caller decides about a step that is too long already.
  if (left <= 0 || each <= 0) return 0;
  const double root = 2 * left / (each + std::sqrt(each * each + 4 * square * left));
  auto tokens = static_cast<int32_t>(std::clamp<double>(root, 0, most - 1));
  while (tokens > 0 && !fits(tokens)) --tokens;
  while (tokens < most - 1 && fits(tokens + 1)) ++tokens;
  return tokens;
}

// Relative errors count, so that short steps weigh as much as long ones. Huber: beyond kOutlier the
// pull no longer grows.
double LatencyModel::weight(double fitted, double seconds) const {
  const double scale = times_.ready ? fitted : seconds;
  if (scale <= kShortestStepS) return 0.0;
  const double error = std::abs(seconds / scale - 1.0);
  const double cut = error > kOutlier ? kOutlier / error : 1.0;
  return cut / (scale * scale);
}

void LatencyModel::observe(const StepShape& shape, double seconds) {
  if (!(seconds > kShortestStepS) || !std::isfinite(seconds)) return;
  const double fitted = times_.fitted(shape);
  // A part of the step that was never seen costs nothing so far: learn it as any first step.
  const double w = fitted > kShortestStepS ? weight(fitted, seconds) : 1.0 / (seconds * seconds);
  const StepTerms x = terms(shape);
  for (size_t i = 0; i < kStepTerms; ++i) {
    for (size_t j = 0; j < kStepTerms; ++j) {
      recent_.xx[i][j] = recent_.xx[i][j] * kKeep + w * x[i] * x[j];
    }
    recent_.xy[i] = recent_.xy[i] * kKeep + w * x[i] * seconds;
  }
  if (times_.ready && fitted > kShortestStepS) track_factors(seconds / fitted);
  fit(kSweeps);
  ++observed_;
  times_.ready = times_.ready || observed_ >= kReadyAfter;  // a short calibration stays enough
}

void LatencyModel::track_factors(double ratio) {
  times_.p50_factor = follow_quantile(times_.p50_factor, ratio, 0.50, kQuantileRate);
  times_.p95_factor = follow_quantile(times_.p95_factor, ratio, 0.95, kQuantileRate);
  times_.p50_factor = std::clamp(times_.p50_factor, kFactorFloor, kFactorCeiling);
  times_.p95_factor = std::clamp(times_.p95_factor, times_.p50_factor, kFactorCeiling);
}

void LatencyModel::end_calibration() {
  if (observed_ == 0) return;
  times_.ready = times_.ready || observed_ >= kReadyCalibrated;
  fit(kCalibrationSweeps);
  const double scale = kAnchorSteps / static_cast<double>(observed_);
  anchor_ = recent_;
  for (size_t i = 0; i < kStepTerms; ++i) {
    for (double& product : anchor_.xx[i]) product *= scale;
    anchor_.xy[i] *= scale;
  }
  times_.p50_factor = 1.0;
}

// Coordinate descent on the normal equations: each coefficient in turn to its best value, not
// below zero.
void LatencyModel::fit(int sweeps) {
  StepTerms& theta = times_.seconds_per;
  for (int sweep = 0; sweep < sweeps; ++sweep) {
    for (size_t i = 0; i < kStepTerms; ++i) {
      const double own = recent_.xx[i][i] + anchor_.xx[i][i];
      if (own <= 0) continue;
      double rest = recent_.xy[i] + anchor_.xy[i];
      for (size_t j = 0; j < kStepTerms; ++j) {
        if (j != i) rest -= (recent_.xx[i][j] + anchor_.xx[i][j]) * theta[j];
      }
      theta[i] = std::max(0.0, rest / own);
    }
  }
}

}  // namespace puna::engine
