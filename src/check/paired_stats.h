// SPDX-License-Identifier: Apache-2.0
// Statistics of two models that answered the same items. An item's difference d is +1 when the base
// was right and the variant wrong (a loss), -1 the other way round, else 0; the loss is the mean of
// d over a population of items. Pure functions; shares are 0…1, never per cent.
// Sources: McNemar 1947 (exact form); Tango 1998, Stat. Med. 17:891; Clopper and Pearson 1934; Holm
// 1979; Liang and Zeger 1986 for clusters. Checked against scipy and statsmodels
// (tools/golden/make_check_golden.py).
//
//   PairedCounts counts{.items = 500, .lost = 12, .gained = 5};
//   if (tango_interval(counts, 0.05).high < 0.03) ...           // not worse by 3 points
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace puna::check {

// part / whole; 0 of nothing.
double share(int64_t part, int64_t whole);

struct PairedCounts {
  int64_t items = 0;
  int64_t lost = 0;    // b: the base right, the variant wrong
  int64_t gained = 0;  // c: the reverse

  double loss() const;   // (b - c) / items; 0 without items
  double flips() const;  // (b + c) / items: rho
};

// Each end errs with at most the probability that was asked for; together twice that.
struct Interval {
  double low = 0;
  double high = 0;
};

double normal_cdf(double z);
double normal_quantile(double p);  // 0 < p < 1

// P(X >= lost | Bin(lost + gained, 1/2)): how likely so many losses are without any true loss.
double mcnemar_exact(const PairedCounts& counts);

// Of a share of `successes` in `trials` > 0, `error` on each side. Never too narrow.
Interval clopper_pearson(int64_t successes, int64_t trials, double error);

// Of the loss, `error` on each side, by inverting the score test; items > 0.
Interval tango_interval(const PairedCounts& counts, double error);
// The same, exact and wide: Clopper–Pearson of each kind of flip at half the error.
Interval exact_loss_interval(const PairedCounts& counts, double error);

// Against "the loss is `loss` at most", for `loss` in (-1, 1): how likely a score as high as the
// observed one is, exactly, whatever the share of flips is among those that the data allow (Berger
// and Boos 1994). Guards Tango's interval, whose error reaches 8 % instead of 5 % when nearly every
// flip is a loss.
double exact_p_value(const PairedCounts& counts, double loss);
// Tango's interval, widened where flips are few so that exact_p_value() agrees.
Interval loss_interval(const PairedCounts& counts, double error);
// What decides: true when loss_interval() lies on one side of `loss`, found sooner.
bool refutes_at_least(const PairedCounts& counts, double loss, double error);  // high < loss
bool refutes_at_most(const PairedCounts& counts, double loss, double error);   // low > loss

// p-values that may be read as if there were one test: in the order of the input.
std::vector<double> holm(std::span<const double> p_values);

// Standard error of the mean of `differences` when items of one cluster (a template) go together,
// as statsmodels' OLS on a constant with cov_type "cluster". Needs two clusters, else 0.
double cluster_standard_error(std::span<const double> differences,
                              std::span<const int32_t> clusters);
// Whether that is larger than `plain`, the standard error of independent items, by more than chance
// makes it in one of 1 / `error` samples; true with one cluster, which can't show that it isn't.
bool clusters_matter(std::span<const double> differences, std::span<const int32_t> clusters,
                     double plain, double error);
// `error` on each side, by Student's t with clusters - 1 degrees of freedom; the whole of [-1, 1]
// with one cluster.
Interval cluster_interval(std::span<const double> differences, std::span<const int32_t> clusters,
                          double error);

// Probability that `items` pairs show non-inferiority, for a true loss and flip share, by the
// normal approximation.
double pass_power(int64_t items, double flips, double loss, double delta, double error);
// The same of the exact test: counts move in steps, which costs few flips most (Fleiss's correction
// for continuity).
double exact_pass_power(int64_t items, double flips, double loss, double delta, double error);
// Pairs with which the exact test has that power.
int64_t items_for_power(double flips, double loss, double delta, double error, double power);
// The smallest loss that a two-sided test at `error` finds with `power`.
double detectable_loss(int64_t items, double flips, double error, double power);

}  // namespace puna::check
