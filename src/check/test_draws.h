// SPDX-License-Identifier: Apache-2.0
// For tests: how often the tests of paired_stats and sequential_test decide, by simulation from
// a known truth. Seeded; bounds have three standard errors of room.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <random>

#include "check/gate.h"
#include "check/paired_stats.h"
#include "check/sequential_test.h"

namespace puna::check {

struct Truth {
  int64_t items;
  double flips;
  double loss;
};

// One item after the other.
class Draw {
 public:
  Draw(const Truth& truth, uint64_t seed) : truth_(truth), random_(seed) {}
  void next(PairedCounts& counts) {
    const double lost = (truth_.flips + truth_.loss) / 2;
    const double u = static_cast<double>(random_() >> 11U) * 0x1p-53;
    ++counts.items;
    if (u < lost) {
      ++counts.lost;
    } else if (u < truth_.flips) {
      ++counts.gained;
    }
  }

 private:
  Truth truth_;
  std::mt19937_64 random_;
};

struct Rates {
  double pass = 0;
  double refuse = 0;
};

inline Rates fixed_rates(const Truth& truth, double delta, int runs) {
  Rates rates;
  for (int run = 0; run < runs; ++run) {
    Draw draw(truth, static_cast<uint64_t>(run) * 2654435761U + 1);
    PairedCounts counts;
    while (counts.items < truth.items) draw.next(counts);
    if (refutes_at_least(counts, delta, 0.05)) rates.pass += 1.0 / runs;
    if (refutes_at_most(counts, delta, 0.05)) rates.refuse += 1.0 / runs;
  }
  return rates;
}

// Looks after every item, and stops at the first decision: optional stopping at its worst.
inline Rates sequential_rates(const Truth& truth, double delta, double error, int runs) {
  const double threshold = -std::log(error);
  Rates rates;
  for (int run = 0; run < runs; ++run) {
    Draw draw(truth, static_cast<uint64_t>(run) * 2654435761U + 7);
    PairedCounts counts;
    while (counts.items < truth.items) {
      draw.next(counts);
      if (log_capital(counts, Hypothesis::kLossAtLeast, delta) >= threshold) {
        rates.pass += 1.0 / runs;
        break;
      }
      if (log_capital(counts, Hypothesis::kLossAtMost, delta) >= threshold) {
        rates.refuse += 1.0 / runs;
        break;
      }
    }
  }
  return rates;
}

// Three standard errors of a share of 5 % seen `runs` times.
inline double slack(int runs) { return 3 * std::sqrt(0.05 * 0.95 / runs); }

inline void expect_calibrated(const Truth& truth, double delta, int runs) {
  const Rates at_delta = fixed_rates({truth.items, truth.flips, delta}, delta, runs);
  EXPECT_LE(at_delta.pass, 0.05 + slack(runs)) << "false pass at " << truth.items;
  EXPECT_LE(at_delta.refuse, 0.05 + slack(runs)) << "false refusal at " << truth.items;
}

// The whole gate, early looks and the guard against crowded templates included, on items whose
// templates are all alike.
inline Rates gate_rates(const GateConfig& config, const Truth& truth, int templates, int runs) {
  Rates rates;
  for (int run = 0; run < runs; ++run) {
    std::mt19937_64 random(static_cast<uint64_t>(run) * 77 + 5);
    FamilyGate gate(config, truth.items);
    while (!gate.decided()) {
      const double u = static_cast<double>(random() >> 11U) * 0x1p-53;
      const bool lost = u < (truth.flips + truth.loss) / 2;
      const bool gained = !lost && u < truth.flips;
      gate.add({.base_right = lost || (!gained && u < 0.6),
                .variant_right = gained || (!lost && u < 0.6),
                .cluster = static_cast<int32_t>(random() % static_cast<uint64_t>(templates))});
    }
    const Verdict verdict = gate.result().verdict;
    if (verdict == Verdict::kPass) rates.pass += 1.0 / runs;
    if (verdict == Verdict::kRefuse) rates.refuse += 1.0 / runs;
  }
  return rates;
}

inline void expect_gate_calibrated(int runs) {
  const GateConfig config{.delta = 0.05};
  const Rates at_delta = gate_rates(config, {400, 0.09, config.delta}, 20, runs);
  EXPECT_LE(at_delta.pass, 0.05 + slack(runs));
  EXPECT_LE(at_delta.refuse, 0.05 + slack(runs));
  EXPECT_GE(gate_rates(config, {400, 0.09, 0}, 20, runs).pass, 0.85);
}

// As many items as are planned suffice, where 8 % of them flip.
inline void expect_planned_power(double delta, int templates, int runs) {
  const GateConfig config{.delta = delta};
  const double power = gate_rates(config, {planned_items(config), 0.08, 0}, templates, runs).pass;
  const double room = 3 * std::sqrt(0.8 * 0.2 / runs);
  EXPECT_GE(power, 0.8 - room) << delta << ", " << templates << " templates";
  EXPECT_LE(power, 0.85 + room) << delta << ", " << templates << " templates";
}

}  // namespace puna::check
