// SPDX-License-Identifier: Apache-2.0
#include "check/paired_stats.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <map>
#include <random>
#include <sstream>
#include <string>
#include <vector>

namespace puna::check {
namespace {

struct GoldenLine {
  std::string name;
  std::vector<double> arguments;
  std::vector<double> values;
  PairedCounts counts() const {  // arguments: items, lost, gained
    return {.items = static_cast<int64_t>(arguments.at(0)),
            .lost = static_cast<int64_t>(arguments.at(1)),
            .gained = static_cast<int64_t>(arguments.at(2))};
  }
};

std::vector<GoldenLine> golden_lines() {
  std::ifstream file(PUNA_GOLDEN_DIR "/check/paired_stats.txt");
  std::vector<GoldenLine> lines;
  for (std::string text; std::getline(file, text);) {
    std::istringstream words(text);
    GoldenLine line;
    words >> line.name;
    std::vector<double>* into = &line.arguments;
    for (std::string word; words >> word;) {
      if (word == "=") {
        into = &line.values;
      } else {
        into->push_back(std::stod(word));
      }
    }
    lines.push_back(line);
  }
  return lines;
}

std::vector<double> as_list(const Interval& interval) { return {interval.low, interval.high}; }

std::vector<double> clustered(const GoldenLine& line) {
  std::vector<double> differences;
  std::vector<int32_t> clusters;
  for (size_t i = 0; i < line.arguments.size(); i += 2) {
    differences.push_back(line.arguments[i]);
    clusters.push_back(static_cast<int32_t>(line.arguments[i + 1]));
  }
  const Interval interval = cluster_interval(differences, clusters, 0.05);
  return {cluster_standard_error(differences, clusters), interval.low, interval.high};
}

std::vector<double> computed(const GoldenLine& line) {
  const std::vector<double>& a = line.arguments;
  const auto whole = [&](size_t i) { return static_cast<int64_t>(a.at(i)); };
  if (line.name == "mcnemar") {
    return {mcnemar_exact({.items = whole(0) + whole(1), .lost = whole(0), .gained = whole(1)})};
  }
  if (line.name == "clopper_pearson") return as_list(clopper_pearson(whole(0), whole(1), a.at(2)));
  if (line.name == "tango") return as_list(tango_interval(line.counts(), a.at(3)));
  if (line.name == "holm") return holm(a);
  if (line.name == "cluster") return clustered(line);
  if (line.name == "power") return {pass_power(whole(0), a.at(1), a.at(2), a.at(3), a.at(4))};
  if (line.name == "normal_cdf") return {normal_cdf(a.at(0))};
  if (line.name == "normal_quantile") return {normal_quantile(a.at(0))};
  ADD_FAILURE() << "no function for " << line.name;
  return {};
}

TEST(PairedStats, AgreeWithScipyAndStatsmodels) {
  std::map<std::string, int> seen;
  for (const GoldenLine& line : golden_lines()) {
    const std::vector<double> values = computed(line);
    ASSERT_EQ(values.size(), line.values.size()) << line.name;
    for (size_t i = 0; i < values.size(); ++i) {
      EXPECT_NEAR(values[i], line.values[i], 1e-9) << line.name << " " << seen[line.name];
    }
    ++seen[line.name];
  }
  EXPECT_EQ(seen.size(), 8U);
  EXPECT_EQ(seen["tango"], 30);
}

TEST(PairedStats, NoFlipsGiveTheRuleOfThree) {
  const PairedCounts none{.items = 100};
  EXPECT_NEAR(clopper_pearson(0, 100, 0.05).high, 0.0295, 1e-4);
  const double z = normal_quantile(0.95);
  EXPECT_NEAR(tango_interval(none, 0.05).high, z * z / (100 + z * z), 1e-12);
  EXPECT_NEAR(tango_interval(none, 0.05).low, -tango_interval(none, 0.05).high, 1e-12);
  EXPECT_EQ(mcnemar_exact(none), 1);
  EXPECT_EQ(none.loss(), 0);
}

TEST(PairedStats, ExactIntervalIsNeverNarrower) {
  for (const GoldenLine& line : golden_lines()) {
    if (line.name != "tango") continue;
    const Interval exact = exact_loss_interval(line.counts(), line.arguments[3]);
    const Interval guarded = loss_interval(line.counts(), line.arguments[3]);
    EXPECT_LE(exact.low, line.values[0] + 0.004);
    EXPECT_GE(exact.high, line.values[1] - 0.004);
    EXPECT_LE(guarded.low, line.values[0] + 1e-9);
    EXPECT_GE(guarded.high, line.values[1] - 1e-9);
    EXPECT_LT(guarded.high, line.values[1] + 0.02);
  }
}

// With every flip a loss, the exact p-value must be the binomial tail, but for what the search over
// the flips costs.
TEST(PairedStats, ExactPValueOfOneKindOfFlip) {
  // scipy.stats.binomtest(9, 100, 0.03, alternative="greater").pvalue
  constexpr double kTail = 0.003216035;
  const double p = exact_p_value({.items = 100, .lost = 9}, 0.03);
  EXPECT_GT(p, kTail);
  EXPECT_LT(p, 0.03);
  EXPECT_EQ(exact_p_value({.items = 100, .lost = 0, .gained = 40}, 0.03), 1);
}

TEST(PairedStats, IntervalAndDecisionAgree) {
  for (const double delta : {0.03, 0.05}) {
    for (const int64_t lost : {0, 3, 9, 20, 45}) {
      for (const int64_t gained : {0, 4, 12}) {
        const PairedCounts counts{.items = 400, .lost = lost, .gained = gained};
        const Interval interval = loss_interval(counts, 0.05);
        EXPECT_EQ(interval.high < delta, refutes_at_least(counts, delta, 0.05)) << lost;
        EXPECT_EQ(interval.low > delta, refutes_at_most(counts, delta, 0.05)) << lost;
      }
    }
  }
}

TEST(PairedStats, ItemsForPowerAreThoseOfTheTable) {
  EXPECT_EQ(items_for_power(0.04, 0, 0.03, 0.05, 0.8), 355);  // docs/check.md
  EXPECT_EQ(items_for_power(0.08, 0, 0.03, 0.05, 0.8), 632);
  EXPECT_EQ(items_for_power(0.20, 0, 0.05, 0.05, 0.8), 544);
  EXPECT_GE(pass_power(550, 0.08, 0, 0.03, 0.05), 0.8);
  EXPECT_GE(exact_pass_power(632, 0.08, 0, 0.03, 0.05), 0.8);
  EXPECT_EQ(exact_pass_power(30, 0.08, 0, 0.03, 0.05), 0);
  EXPECT_NEAR(detectable_loss(500, 0.08, 0.05, 0.8), 0.035, 0.001);
}

TEST(PairedStats, ClustersWidenWhatGoesTogether) {
  std::vector<double> together;
  std::vector<double> spread;
  std::vector<int32_t> clusters;
  for (int32_t i = 0; i < 100; ++i) {
    clusters.push_back(i / 10);
    together.push_back(i < 20 ? 1 : 0);    // two clusters lose all
    spread.push_back(i % 10 < 2 ? 1 : 0);  // each loses two
  }
  EXPECT_GT(cluster_standard_error(together, clusters), 0.1);
  EXPECT_NEAR(cluster_standard_error(spread, clusters), 0, 1e-12);
  const std::vector<int32_t> one(together.size(), 3);
  EXPECT_EQ(cluster_interval(together, one, 0.05).high, 1);
  const double plain = std::sqrt(0.2 * 0.8 / 100);
  EXPECT_TRUE(clusters_matter(together, clusters, plain, 0.05));
  EXPECT_FALSE(clusters_matter(spread, clusters, plain, 0.05));
  EXPECT_TRUE(clusters_matter(spread, one, plain, 0.05));
}

TEST(PairedStats, ChanceSeldomMakesClustersMatter) {
  std::mt19937_64 random(3);
  constexpr int kRuns = 2000;
  int mattered = 0;
  for (int run = 0; run < kRuns; ++run) {
    std::vector<double> differences;
    std::vector<int32_t> clusters;
    double sum = 0;
    double squares = 0;
    for (int i = 0; i < 400; ++i) {
      const uint64_t draw = random() % 100;
      differences.push_back(draw < 4 ? 1 : draw < 8 ? -1 : 0);
      sum += differences.back();
      squares += differences.back() * differences.back();
      clusters.push_back(static_cast<int32_t>(random() % 8));
    }
    const double plain = std::sqrt((squares - sum * sum / 400) / 400 / 400);
    mattered += clusters_matter(differences, clusters, plain, 0.05) ? 1 : 0;
  }
  EXPECT_GT(mattered, kRuns * 0.03);
  EXPECT_LT(mattered, kRuns * 0.07);
}

}  // namespace
}  // namespace puna::check
