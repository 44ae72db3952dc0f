// SPDX-License-Identifier: Apache-2.0
#include "load/percentiles.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"

namespace puna::load {

double percentile_of_sorted(const std::vector<double>& sorted, double fraction) {
  CHECK(!sorted.empty());
  CHECK(fraction >= 0 && fraction <= 1);
  const double position = fraction * static_cast<double>(sorted.size() - 1);
  const auto low = static_cast<size_t>(position);
  const size_t high = std::min(low + 1, sorted.size() - 1);
  const double part = position - static_cast<double>(low);
  return sorted[low] + part * (sorted[high] - sorted[low]);
}

Percentiles percentiles_of(std::vector<double> values) {
  Percentiles result;
  if (values.empty()) return result;
  std::sort(values.begin(), values.end());
  result.count = values.size();
  result.mean =
      std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
  result.p50 = percentile_of_sorted(values, 0.50);
  result.p90 = percentile_of_sorted(values, 0.90);
  result.p95 = percentile_of_sorted(values, 0.95);
  result.p99 = percentile_of_sorted(values, 0.99);
  result.max = values.back();
  return result;
}

}  // namespace puna::load
