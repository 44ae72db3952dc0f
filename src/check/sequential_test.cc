// SPDX-License-Identifier: Apache-2.0
#include "check/sequential_test.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/check.h"

namespace puna::check {
namespace {

// Stakes as shares of the largest that can't ruin. The best one is near margin / flips: 0.15 for a
// margin of 3 points and 20 % flips, 0.75 for 4 % flips.
constexpr std::array<double, 7> kStakes = {0.03, 0.07, 0.15, 0.3, 0.5, 0.7, 0.9};

}  // namespace

double log_capital(const PairedCounts& counts, Hypothesis hypothesis, double loss) {
  CHECK(loss > -1 && loss < 1);
  // A bet pays 1 + stake * gain. For kLossAtLeast the gain is loss - d, for kLossAtMost d - loss.
  const double sign = hypothesis == Hypothesis::kLossAtLeast ? 1 : -1;
  const double worst = 1 - sign * loss;  // the largest fall of sign * (loss - d)
  const auto same = static_cast<double>(counts.items - counts.lost - counts.gained);
  std::array<double, kStakes.size()> logs{};
  for (size_t i = 0; i < kStakes.size(); ++i) {
    const double stake = sign * kStakes[i] / worst;
    logs[i] = same * std::log1p(stake * loss) +
              static_cast<double>(counts.lost) * std::log1p(stake * (loss - 1)) +
              static_cast<double>(counts.gained) * std::log1p(stake * (loss + 1));
  }
  const double largest = *std::max_element(logs.begin(), logs.end());
  double sum = 0;
  for (const double log : logs) sum += std::exp(log - largest);
  return largest + std::log(sum / static_cast<double>(kStakes.size()));
}

Interval anytime_interval(const PairedCounts& counts, double error) {
  const double threshold = -std::log(error);
  constexpr double kEdge = 1 - 1e-9;
  constexpr int kHalvings = 50;
  // Each capital is monotone in the loss that it bets against, beyond the mean.
  const auto bound = [&](Hypothesis hypothesis, double refuted) {
    double kept = counts.loss();
    if (log_capital(counts, hypothesis, refuted) < threshold) return refuted > 0 ? 1.0 : -1.0;
    for (int i = 0; i < kHalvings; ++i) {
      const double middle = (kept + refuted) / 2;
      (log_capital(counts, hypothesis, middle) < threshold ? kept : refuted) = middle;
    }
    return refuted;
  };
  return {.low = bound(Hypothesis::kLossAtMost, -kEdge),
          .high = bound(Hypothesis::kLossAtLeast, kEdge)};
}

double anytime_p_value(const PairedCounts& counts) {
  return std::min(1.0, std::exp(-log_capital(counts, Hypothesis::kLossAtMost, 0)));
}

}  // namespace puna::check
