// SPDX-License-Identifier: Apache-2.0
#include "check/gate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "base/check.h"
#include "check/sequential_test.h"

namespace puna::check {
namespace {

constexpr double kPlannedPower = 0.8;
constexpr double kUsualFlips = 0.08;
constexpr double kClusterError = 0.05;
constexpr double kControlFlips = 0.05;
constexpr double kControlError = 0.05;

double percent(double share) { return 100 * share; }

bool sees_enough(const PairedCounts& counts, Hypothesis hypothesis, const GateConfig& config) {
  return config.early_error > 0 &&
         log_capital(counts, hypothesis, config.delta) >= -std::log(config.early_error);
}

// Standard error if items were independent.
double plain_standard_error(const PairedCounts& counts) {
  const double variance = counts.flips() - counts.loss() * counts.loss();
  return std::sqrt(std::max(0.0, variance) / static_cast<double>(counts.items));
}

}  // namespace

void FamilyGate::add(const Outcome& outcome) {
  CHECK(!decided());
  ++counts_.items;
  base_right_ += outcome.base_right ? 1 : 0;
  variant_right_ += outcome.variant_right ? 1 : 0;
  counts_.lost += outcome.base_right && !outcome.variant_right ? 1 : 0;
  counts_.gained += !outcome.base_right && outcome.variant_right ? 1 : 0;
  differences_.push_back(static_cast<double>(outcome.base_right) -
                         static_cast<double>(outcome.variant_right));
  clusters_.push_back(outcome.cluster);
  early_ = early_verdict();
}

bool FamilyGate::early_verdict() const {
  const bool good = sees_enough(counts_, Hypothesis::kLossAtLeast, config_);
  if (!good && !sees_enough(counts_, Hypothesis::kLossAtMost, config_)) return false;
  if (share(base_right_, counts_.items) < config_.base_floor) return false;
  if (!good) return true;
  const double high = anytime_interval(counts_, config_.early_error).high;
  return upper_end(high, config_.early_error) < config_.delta;
}

double FamilyGate::upper_end(double of_items, double error) const {
  if (!clusters_matter(differences_, clusters_, plain_standard_error(counts_), kClusterError)) {
    return of_items;
  }
  return std::max(of_items, cluster_interval(differences_, clusters_, error).high);
}

FamilyResult FamilyGate::result() const {
  FamilyResult result;
  result.counts = counts_;
  result.base_right = base_right_;
  result.variant_right = variant_right_;
  result.planned = planned_;
  result.early = early_;
  result.clusters = std::set<int32_t>(clusters_.begin(), clusters_.end()).size();
  if (counts_.items == 0) {
    result.loss = {.low = -1, .high = 1};
    return result;
  }
  const double late_error = config_.error - config_.early_error;
  result.interval_error = early_ ? config_.early_error : late_error;
  result.p = early_ ? anytime_p_value(counts_) : mcnemar_exact(counts_);
  result.loss =
      early_ ? anytime_interval(counts_, config_.early_error) : loss_interval(counts_, late_error);
  const double high = upper_end(result.loss.high, result.interval_error);
  result.clustered = high > result.loss.high;
  result.loss.high = high;
  // Two ways to a small p share the error as the verdicts do.
  result.p = std::min(1.0, result.p * config_.error / result.interval_error);
  result.power = exact_pass_power(planned_, counts_.flips(), 0, config_.delta, late_error);
  result.detectable = detectable_loss(counts_.items, counts_.flips(), 0.05, kPlannedPower);
  judge(result);
  return result;
}

void FamilyGate::judge(FamilyResult& result) const {
  const double base = share(base_right_, counts_.items);
  if (base < config_.base_floor) {
    result.why = fmt::format(
        "the base is right on {:.1f} % only: under {:.0f} % there is too little to lose",
        percent(base), percent(config_.base_floor));
  } else if (result.loss.high < config_.delta) {
    result.verdict = Verdict::kPass;
    result.why = fmt::format("loses at most {:.1f} points; {:.1f} are allowed",
                             percent(std::max(0.0, result.loss.high)), percent(config_.delta));
  } else if (result.loss.low > config_.delta) {
    result.verdict = Verdict::kRefuse;
    result.why = fmt::format("loses at least {:.1f} points; {:.1f} are allowed",
                             percent(result.loss.low), percent(config_.delta));
  } else {
    const double flips = std::max(counts_.flips(), share(1, counts_.items));
    const int64_t needed = items_for_power(flips, 0, config_.delta,
                                           config_.error - config_.early_error, kPlannedPower);
    result.why = fmt::format(
        "the loss is between {:.1f} and {:.1f} points; {:.1f} are allowed{}",
        percent(result.loss.low), percent(result.loss.high), percent(config_.delta),
        needed > counts_.items ? fmt::format(", and about {} items would tell", needed) : "");
  }
}

void correct_degraded(std::span<FamilyResult> results, double error) {
  std::vector<double> p_values;
  p_values.reserve(results.size());
  for (const FamilyResult& result : results) p_values.push_back(result.p);
  const std::vector<double> corrected = holm(p_values);
  for (size_t i = 0; i < results.size(); ++i) {
    results[i].p = corrected[i];
    results[i].degraded = results[i].counts.loss() > 0 && corrected[i] <= error;
  }
}

int64_t planned_items(const GateConfig& config) {
  return items_for_power(kUsualFlips, 0, config.delta, config.error - config.early_error,
                         kPlannedPower);
}

int64_t fewest_items(const GateConfig& config) {
  const auto enough = [&](int64_t items) {
    const PairedCounts same{.items = items};
    return refutes_at_least(same, config.delta, config.error - config.early_error) ||
           sees_enough(same, Hypothesis::kLossAtLeast, config);
  };
  int64_t few = 0;
  int64_t many = 1;
  while (!enough(many)) many *= 2;
  while (many - few > 1) {
    const int64_t middle = (few + many) / 2;
    (enough(middle) ? many : few) = middle;
  }
  return many;
}

bool Control::ok() const {
  if (items == 0) return true;
  if (share(lost + gained, items) > kControlFlips) return false;
  const double worse = mcnemar_exact({.items = items, .lost = lost, .gained = gained});
  const double better = mcnemar_exact({.items = items, .lost = gained, .gained = lost});
  return 2 * std::min(worse, better) > kControlError;
}

bool refused_by_screen(const Screen& screen, const ScreenLimits& limits) {
  if (screen.mean_kld < 0) return false;
  return screen.mean_kld > limits.mean_kld || screen.same_top < limits.same_top;
}

}  // namespace puna::check
