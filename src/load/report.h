// SPDX-License-Identifier: Apache-2.0
// A run told in a table for people, in one JSON object for scripts, and on a page with plots.
#pragma once

#include <string>

#include "load/summary.h"

namespace puna::load {

// What was run, for the head of a report.
struct ReportHead {
  std::string url;
  std::string model;
  std::string endpoint;
  std::string arrivals;  // "4 requests/s, Poisson"
  std::string prompt_tokens;
  std::string output_tokens;
  uint64_t seed = 0;
  Slo slo;
};

std::string report_text(const ReportHead& head, const Summary& summary);
std::string report_json(const ReportHead& head, const Summary& summary);
// A page of its own, with plots.
std::string report_html(const ReportHead& head, const Summary& summary, const LoadResult& result);

}  // namespace puna::load
