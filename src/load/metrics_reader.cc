// SPDX-License-Identifier: Apache-2.0
#include "load/metrics_reader.h"

#include <initializer_list>

#include "load/text_numbers.h"

namespace puna::load {
namespace {

double first_of(std::string_view metrics, std::initializer_list<std::string_view> names) {
  for (const std::string_view name : names) {
    if (const auto value = metric_value(metrics, name)) return *value;
  }
  return 0;
}

}  // namespace

std::optional<double> metric_value(std::string_view metrics, std::string_view name) {
  std::optional<double> sum;
  for (const std::string_view line : split(metrics, '\n')) {
    if (!line.starts_with(name) || line.size() <= name.size()) continue;
    const char after = line[name.size()];
    if (after != '{' && after != ' ') continue;
    // A label may hold spaces; the value comes after the labels, and a time may come after it.
    const size_t labels_end = after == '{' ? line.rfind('}') : name.size() - 1;
    if (labels_end == std::string_view::npos) continue;
    std::string_view rest = line.substr(labels_end + 1);
    while (rest.starts_with(' ')) rest.remove_prefix(1);
    const auto value = parse_number<double>(rest.substr(0, rest.find_first_of(" \r")));
    if (value) sum = sum.value_or(0) + *value;
  }
  return sum;
}

MetricSample read_metrics(std::string_view metrics) {
  MetricSample sample;
  sample.running = first_of(metrics, {"vllm:num_requests_running", "llamacpp:requests_processing"});
  sample.waiting = first_of(metrics, {"vllm:num_requests_waiting", "llamacpp:requests_deferred"});
  sample.kv_usage = first_of(metrics, {"vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc",
                                       "llamacpp:kv_cache_usage_ratio"});
  return sample;
}

}  // namespace puna::load
