// SPDX-License-Identifier: Apache-2.0
// The numbers of a run, from its records.
//
//   const Summary summary = summarise(result, plan, {.ttft_ms = 500});
#pragma once

#include <map>
#include <optional>
#include <string>

#include "load/load_run.h"
#include "load/percentiles.h"

namespace puna::load {

// What an answer must keep to be a good one. None: it need only be whole.
struct Slo {
  std::optional<double> ttft_ms = std::nullopt;
  std::optional<double> tpot_ms = std::nullopt;
  std::optional<double> e2e_ms = std::nullopt;

  bool any() const { return ttft_ms || tpot_ms || e2e_ms; }
  // Counted from the due time, so that a late start and waits between attempts count.
  bool kept_by(const Record& record) const;
};

// Of one kind of requests: all, a tenant's, a class's.
struct GroupSummary {
  std::string name;
  size_t requests = 0;
  size_t done = 0;
  size_t refused = 0;
  size_t failed = 0;
  size_t good = 0;  // done within the SLO
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;
  int64_t output_tokens = 0;
  Percentiles ttft_ms;          // from the send to the first text
  Percentiles tpot_ms;          // (last text - first text) / (output tokens - 1)
  Percentiles itl_ms;           // between pieces of text
  Percentiles e2e_ms;           // from the send to the end
  Percentiles ttft_over_quote;  // of the server's quoted p95, where it told one
  Percentiles due_ttft_ms;      // from when it was due: with what a slow client or retries add
  Percentiles due_e2e_ms;
};

struct RefusalSummary {
  std::map<int, size_t> by_status;
  Percentiles latency_ms;
  size_t with_retry_after = 0;
  Percentiles retry_after_ms;
  // |Retry-After - wait| / wait. When the wait was over lies between two sends of the same tenant
  // and class, be it the same client's or another's: the first that was taken and at least as
  // large, and the last before it that was refused and not larger. The middle of them counts. Where
  // larger requests come seldom, the first is late, for a place may have gone to a smaller one:
  // requests of one size measure best.
  Percentiles retry_after_error;
  size_t came_back = 0;   // refused clients that tried again
  size_t in_at_once = 0;  // ... and were taken the first time they did
  size_t in_at_last = 0;  // ... or later
};

struct Summary {
  GroupSummary all;
  std::vector<GroupSummary> tenants;  // where there is more than one
  std::vector<GroupSummary> classes;
  RefusalSummary refusals;
  std::map<std::string, size_t> errors;
  double duration_s = 0;      // from the start to the last answer
  double offered_per_s = 0;   // over the time of the arrivals
  double requests_per_s = 0;  // whole answers over the duration
  double goodput_per_s = 0;   // those within the SLO
  double output_tokens_per_s = 0;
  double total_tokens_per_s = 0;
  size_t most_in_flight = 0;
  Percentiles send_lag_ms;        // first sends after their due time: the generator's own delay
  bool counted_by_server = true;  // tokens by usage in every answer
};

Summary summarise(const LoadResult& result, const Target& target, TimeNs arrivals_ns,
                  const Slo& slo);

}  // namespace puna::load
