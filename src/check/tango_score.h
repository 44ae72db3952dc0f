// SPDX-License-Identifier: Apache-2.0
// Tango's score statistic, for the interval and for the exact test. Internal to check.
#pragma once

#include "check/paired_stats.h"

namespace puna::check {

// For the hypothesis that the loss is `loss`: about standard normal under it, large when the data
// say more. Falls as `loss` rises.
double tango_score(const PairedCounts& counts, double loss);

}  // namespace puna::check
