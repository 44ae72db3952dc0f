// SPDX-License-Identifier: Apache-2.0
// The gauges of a server's /metrics that a load report plots. Knows Puna's, vLLM's and llama.cpp's
// names.
#pragma once

#include <optional>
#include <string_view>

#include "base/clock.h"

namespace puna::load {

struct MetricSample {
  TimeNs at_ns = 0;
  double running = 0;
  double waiting = 0;
  double kv_usage = 0;  // 1 is all
};

// The sum of the series of that name in Prometheus' text format; none when there is no such series.
std::optional<double> metric_value(std::string_view metrics, std::string_view name);

MetricSample read_metrics(std::string_view metrics);

}  // namespace puna::load
