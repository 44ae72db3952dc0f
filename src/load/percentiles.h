// SPDX-License-Identifier: Apache-2.0
// What is told of many measurements of one thing.
#pragma once

#include <cstddef>
#include <vector>

namespace puna::load {

struct Percentiles {
  size_t count = 0;  // 0: nothing was measured, and the rest is 0
  double mean = 0;
  double p50 = 0;
  double p90 = 0;
  double p95 = 0;
  double p99 = 0;
  double max = 0;
};

// Of sorted values: the value at position fraction x (n - 1), between two values in proportion.
double percentile_of_sorted(const std::vector<double>& sorted, double fraction);

Percentiles percentiles_of(std::vector<double> values);

}  // namespace puna::load
