// SPDX-License-Identifier: Apache-2.0
// The exact tests of paired_stats.h: the score orders the outcomes, the trinomial weighs them.
#include <algorithm>
#include <boost/math/special_functions/beta.hpp>
#include <cmath>
#include <vector>

#include "base/check.h"
#include "check/paired_stats.h"
#include "check/tango_score.h"

namespace puna::check {
namespace {

// From so many flips on the score is normal enough: its error is within 0.1 points of the nominal.
constexpr int64_t kManyFlips = 200;
// The share of flips is searched where the data leave it with all but this probability, which the
// p-value pays for.
constexpr double kUnlikely = 1e-3;
constexpr int kNuisancePoints = 9;

// P(X = k) and P(X >= k) of a binomial.
double binomial_mass(int64_t k, int64_t n, double p) {
  if (p <= 0) return k == 0 ? 1 : 0;
  if (p >= 1) return k == n ? 1 : 0;
  const auto count = static_cast<double>(k);
  const auto rest = static_cast<double>(n - k);
  return std::exp(std::lgamma(count + rest + 1) - std::lgamma(count + 1) - std::lgamma(rest + 1) +
                  count * std::log(p) + rest * std::log1p(-p));
}

double binomial_tail(int64_t k, int64_t n, double p) {
  if (k <= 0) return 1;
  if (k > n) return 0;
  if (p <= 0 || p >= 1) return p <= 0 ? 0 : 1;
  return boost::math::ibeta(static_cast<double>(k), static_cast<double>(n - k + 1), p);
}

// For each number of gains, the fewest losses that score as high as the data: items + 1 if none.
std::vector<int64_t> rejection_edge(const PairedCounts& data, double loss, int64_t most_gained) {
  const double observed = tango_score(data, loss) - 1e-9;
  std::vector<int64_t> edge;
  int64_t lost = 0;
  for (int64_t gained = 0; gained <= most_gained; ++gained) {
    // Another gain lowers the score, so the edge only rises.
    while (lost + gained <= data.items &&
           tango_score({.items = data.items, .lost = lost, .gained = gained}, loss) < observed) {
      ++lost;
    }
    edge.push_back(lost + gained <= data.items ? lost : data.items + 1);
  }
  return edge;
}

// The probability of that region when gains have the share `gained`.
double region(const std::vector<int64_t>& edge, int64_t items, double gained, double loss) {
  const double lost = std::clamp(gained + loss, 0.0, 1.0);
  double sum = 0;
  for (size_t c = 0; c < edge.size(); ++c) {
    const auto count = static_cast<int64_t>(c);
    const double mass = binomial_mass(count, items, gained);
    if (mass < 1e-12 || edge[c] > items) continue;
    sum += mass * binomial_tail(edge[c], items - count, std::min(1.0, lost / (1 - gained)));
  }
  return sum;
}

PairedCounts swapped(const PairedCounts& counts) {
  return {.items = counts.items, .lost = counts.gained, .gained = counts.lost};
}

// Outward from `inside`, which `refuted` refuses, to where it holds or `end`.
template <typename Refuted>
double bound(double inside, double end, Refuted refuted) {
  constexpr int kHalvings = 20;
  double kept = inside;
  double out = end;
  for (int i = 0; i < kHalvings; ++i) {
    const double middle = (kept + out) / 2;
    (refuted(middle) ? out : kept) = middle;
  }
  return out;
}

}  // namespace

double exact_p_value(const PairedCounts& counts, double loss) {
  CHECK(counts.items > 0 && loss > -1 && loss < 1);
  const int64_t flips = counts.lost + counts.gained;
  const Interval likely = clopper_pearson(flips, counts.items, kUnlikely / 2);
  const double least = std::max(0.0, -loss);
  const double most = (1 - loss) / 2;
  const double low = std::clamp((likely.low - loss) / 2, least, most);
  const double high = std::clamp((likely.high - loss) / 2, least, most);
  // Gains beyond eight deviations weigh nothing.
  const double expected = high * static_cast<double>(counts.items);
  const auto most_gained = std::min<int64_t>(
      counts.items, static_cast<int64_t>(expected + 8 * std::sqrt(expected) + 12));
  const std::vector<int64_t> edge = rejection_edge(counts, loss, most_gained);
  double largest = 0;
  for (int i = 0; i < kNuisancePoints; ++i) {
    const double gained = low + (high - low) * i / (kNuisancePoints - 1);
    largest = std::max(largest, region(edge, counts.items, gained, loss));
  }
  return std::min(1.0, largest + kUnlikely);
}

bool refutes_at_most(const PairedCounts& counts, double loss, double error) {
  if (counts.loss() <= loss || tango_score(counts, loss) < -normal_quantile(error)) return false;
  return counts.lost + counts.gained >= kManyFlips || exact_p_value(counts, loss) <= error;
}

bool refutes_at_least(const PairedCounts& counts, double loss, double error) {
  return refutes_at_most(swapped(counts), -loss, error);
}

Interval loss_interval(const PairedCounts& counts, double error) {
  Interval interval = tango_interval(counts, error);
  if (counts.lost + counts.gained >= kManyFlips) return interval;
  constexpr double kEdge = 1 - 1e-9;
  interval.high = bound(interval.high, kEdge,
                        [&](double loss) { return refutes_at_least(counts, loss, error); });
  interval.low = bound(interval.low, -kEdge,
                       [&](double loss) { return refutes_at_most(counts, loss, error); });
  return interval;
}

}  // namespace puna::check
