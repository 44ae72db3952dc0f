// SPDX-License-Identifier: Apache-2.0
// Tests of the loss that may be looked at after every item: their error bound holds at whatever
// moment one stops, however one came to stop. A bettor stakes a share of his capital against the
// hypothesis on each difference; under the hypothesis the capital can't be expected to grow, so it
// reaches 1 / error with probability `error` at most (Ville 1939; Waudby-Smith and Ramdas 2024).
// Several bettors with stakes from timid to bold share the capital, and it depends on the counts
// alone. Items must be independent draws from the population.
//
//   if (log_capital(counts, kLossAtLeast, 0.03) >= std::log(1 / 0.01)) ...  // not worse by 3
//   points
#pragma once

#include "check/paired_stats.h"

namespace puna::check {

// What the bettor bets against.
enum class Hypothesis {
  kLossAtLeast,  // refuted by good variants
  kLossAtMost,   // refuted by bad ones
};

// Natural logarithm of the capital, 0 at the start. `loss` is in (-1, 1).
double log_capital(const PairedCounts& counts, Hypothesis hypothesis, double loss);

// Those losses that neither bettor refutes: holds the true loss, at whatever moment it is taken,
// but for a probability of `error` on each side.
Interval anytime_interval(const PairedCounts& counts, double error);

// 1 / capital against "no loss at all", at most 1.
double anytime_p_value(const PairedCounts& counts);

}  // namespace puna::check
