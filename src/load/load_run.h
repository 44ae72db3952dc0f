// SPDX-License-Identifier: Apache-2.0
// Sends a plan on its own event loop, in the calling thread. Open loop: a request goes out when the
// plan says, whatever became of those before.
//
//   RETURN_IF_ERROR(prepare(target));  // load/prepare.h
//   ASSIGN_OR_RETURN(const LoadResult result, run_load(target, options, plan, {}));
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "base/result.h"
#include "load/metrics_reader.h"
#include "load/record.h"
#include "load/target.h"

namespace puna::load {

struct LoadOptions {
  bool honour_retry_after = false;          // a refused client comes back when it was told to
  int32_t max_attempts = 20;                // of such a client
  TimeNs timeout_ns = 600 * kNsPerSecond;   // of one attempt
  TimeNs scrape_every_ns = 250 * kNsPerMs;  // of /metrics; 0: never
  bool keep_text = false;
};

struct LoadResult {
  std::vector<Record> records;  // as planned, without those that were cancelled
  std::vector<MetricSample> samples;
  TimeNs took_ns = 0;  // until the last answer
  bool stopped = false;
};

struct Progress {
  size_t sent = 0;
  size_t in_flight = 0;
  size_t done = 0;
  size_t refused = 0;
  size_t failed = 0;
};
// Called a few times a second; false stops the run.
using OnProgress = std::function<bool(const Progress&)>;

// Errors: the server can't be reached.
Result<LoadResult> run_load(const Target& target, const LoadOptions& options,
                            std::span<const PlannedRequest> plan, const OnProgress& on_progress);

}  // namespace puna::load
