// SPDX-License-Identifier: Apache-2.0
#include "check/paired_stats.h"

#include <algorithm>
#include <boost/math/distributions/chi_squared.hpp>
#include <boost/math/distributions/normal.hpp>
#include <boost/math/distributions/students_t.hpp>
#include <boost/math/special_functions/beta.hpp>
#include <cmath>
#include <map>
#include <numeric>

#include "base/check.h"
#include "check/tango_score.h"

namespace puna::check {
namespace {

// Where the score, which falls as the loss rises, passes `target`.
double tango_bound(const PairedCounts& counts, double target) {
  double low = -1;
  double high = 1;
  constexpr int kHalvings = 60;
  for (int i = 0; i < kHalvings; ++i) {
    const double middle = (low + high) / 2;
    (tango_score(counts, middle) > target ? low : high) = middle;
  }
  return (low + high) / 2;
}

struct ClusterMean {
  double mean = 0;
  double standard_error = 0;
  size_t clusters = 0;
};

ClusterMean cluster_mean(std::span<const double> differences, std::span<const int32_t> clusters) {
  CHECK_EQ(differences.size(), clusters.size());
  ClusterMean result;
  if (differences.empty()) return result;
  const auto n = static_cast<double>(differences.size());
  result.mean = std::accumulate(differences.begin(), differences.end(), 0.0) / n;
  std::map<int32_t, double> residuals;
  for (size_t i = 0; i < differences.size(); ++i) {
    residuals[clusters[i]] += differences[i] - result.mean;
  }
  result.clusters = residuals.size();
  if (result.clusters < 2) return result;
  double squares = 0;
  for (const auto& [cluster, residual] : residuals) squares += residual * residual;
  const auto g = static_cast<double>(result.clusters);
  result.standard_error = std::sqrt(squares * g / (g - 1)) / n;
  return result;
}

}  // namespace

double share(int64_t part, int64_t whole) {
  return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : 0.0;
}

double tango_score(const PairedCounts& counts, double loss) {
  const auto n = static_cast<double>(counts.items);
  const auto b = static_cast<double>(counts.lost);
  const auto c = static_cast<double>(counts.gained);
  // The likelihood's maximum under the hypothesis: q, the share of gains, solves
  // 2n q^2 + linear q + constant = 0.
  const double linear = (2 * n - b + c) * loss - b - c;
  const double constant = -c * loss * (1 - loss);
  const double root = std::sqrt(std::max(0.0, linear * linear - 8 * n * constant));
  const double q = linear > 0 ? -2 * constant / (linear + root) : (root - linear) / (4 * n);
  const double variance = n * (2 * q + loss * (1 - loss));
  const double distance = b - c - n * loss;
  if (variance <= 0) return distance > 0 ? HUGE_VAL : (distance < 0 ? -HUGE_VAL : 0);
  return distance / std::sqrt(variance);
}

double PairedCounts::loss() const { return share(lost - gained, items); }
double PairedCounts::flips() const { return share(lost + gained, items); }

double normal_cdf(double z) { return 0.5 * std::erfc(-z / std::sqrt(2.0)); }

double normal_quantile(double p) {
  CHECK(p > 0 && p < 1);
  return boost::math::quantile(boost::math::normal(), p);
}

double mcnemar_exact(const PairedCounts& counts) {
  if (counts.lost <= 0) return 1;
  return boost::math::ibeta(static_cast<double>(counts.lost),
                            static_cast<double>(counts.gained + 1), 0.5);
}

Interval clopper_pearson(int64_t successes, int64_t trials, double error) {
  CHECK(trials > 0 && successes >= 0 && successes <= trials);
  CHECK(error > 0 && error < 1);
  const auto k = static_cast<double>(successes);
  const auto failures = static_cast<double>(trials - successes);
  return {.low = successes == 0 ? 0 : boost::math::ibeta_inv(k, failures + 1, error),
          .high = successes == trials ? 1 : boost::math::ibetac_inv(k + 1, failures, error)};
}

Interval tango_interval(const PairedCounts& counts, double error) {
  CHECK(counts.items > 0 && counts.lost >= 0 && counts.gained >= 0);
  CHECK_LE(counts.lost + counts.gained, counts.items);
  const double z = -normal_quantile(error);
  return {.low = tango_bound(counts, z), .high = tango_bound(counts, -z)};
}

Interval exact_loss_interval(const PairedCounts& counts, double error) {
  const Interval lost = clopper_pearson(counts.lost, counts.items, error / 2);
  const Interval gained = clopper_pearson(counts.gained, counts.items, error / 2);
  return {.low = lost.low - gained.high, .high = lost.high - gained.low};
}

std::vector<double> holm(std::span<const double> p_values) {
  std::vector<size_t> order(p_values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return p_values[a] < p_values[b]; });
  std::vector<double> adjusted(p_values.size());
  double largest = 0;
  for (size_t rank = 0; rank < order.size(); ++rank) {
    const auto left = static_cast<double>(order.size() - rank);
    largest = std::max(largest, std::min(1.0, left * p_values[order[rank]]));
    adjusted[order[rank]] = largest;
  }
  return adjusted;
}

double cluster_standard_error(std::span<const double> differences,
                              std::span<const int32_t> clusters) {
  return cluster_mean(differences, clusters).standard_error;
}

bool clusters_matter(std::span<const double> differences, std::span<const int32_t> clusters,
                     double plain, double error) {
  const ClusterMean of = cluster_mean(differences, clusters);
  if (of.clusters < 2) return true;
  const auto freedom = static_cast<double>(of.clusters - 1);
  const boost::math::chi_squared chance(freedom);
  const double ratio = boost::math::quantile(chance, 1 - error) / freedom;
  return of.standard_error * of.standard_error > ratio * plain * plain;
}

Interval cluster_interval(std::span<const double> differences, std::span<const int32_t> clusters,
                          double error) {
  const ClusterMean of = cluster_mean(differences, clusters);
  if (of.clusters < 2) return {.low = -1, .high = 1};
  const boost::math::students_t student(static_cast<double>(of.clusters - 1));
  const double reach = -boost::math::quantile(student, error) * of.standard_error;
  return {.low = std::max(-1.0, of.mean - reach), .high = std::min(1.0, of.mean + reach)};
}

double pass_power(int64_t items, double flips, double loss, double delta, double error) {
  const double variance = flips - loss * loss;
  if (items <= 0) return 0;
  if (variance <= 0) return loss < delta ? 1 : 0;
  const double distance = (delta - loss) * std::sqrt(static_cast<double>(items) / variance);
  return normal_cdf(distance + normal_quantile(error));
}

double exact_pass_power(int64_t items, double flips, double loss, double delta, double error) {
  const double steps = static_cast<double>(items) * (delta - loss);
  if (steps <= 1) return 0;
  const double worth = static_cast<double>(items) * (1 - 1 / steps) * (1 - 1 / steps);
  return pass_power(static_cast<int64_t>(worth), flips, loss, delta, error);
}

int64_t items_for_power(double flips, double loss, double delta, double error, double power) {
  CHECK_LT(loss, delta);
  const double z = normal_quantile(power) - normal_quantile(error);
  const double margin = delta - loss;
  const double items = z * z * (flips - loss * loss) / (margin * margin);
  if (items <= 0) return 0;
  const double root = 1 + std::sqrt(1 + 4 / (items * margin));
  // Power rises in a saw's teeth; half a tooth more is on the safe side.
  return static_cast<int64_t>(std::ceil(items / 4 * root * root + 0.5 / margin));
}

double detectable_loss(int64_t items, double flips, double error, double power) {
  if (items <= 0) return 1;
  const double z = normal_quantile(power) - normal_quantile(error / 2);
  return z * std::sqrt(flips / static_cast<double>(items));
}

}  // namespace puna::check
