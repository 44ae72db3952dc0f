// SPDX-License-Identifier: Apache-2.0
// What will be sent, and when: all of it is drawn before the first request goes out, so that
// nothing the server does can change it. The same workload gives the same plan.
//
//   Workload work;
//   work.rate = 4;
//   work.duration_s = 60;
//   ASSIGN_OR_RETURN(const std::vector<PlannedRequest> plan, plan_requests(work));
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "load/distribution.h"

namespace puna::load {

inline constexpr size_t kMaxPlannedRequests = 5'000'000;
inline constexpr size_t kMaxTenants = 1024;
inline constexpr int32_t kMaxTurns = 64;
// Conversations that go on side by side when there are several turns.
inline constexpr int32_t kOpenConversations = 8;

// Who sends, or as which class: a share of the requests, a name in the report.
struct Sender {
  std::string name;
  std::string key;  // of a tenant: sent as Bearer token; of a class: unused
  double weight = 1;

  // "name=key:weight", "name=key", "name:weight" or "name".
  static Result<Sender> parse(std::string_view text);
};

// "20:5": 20 requests at once, every 5 seconds.
struct Bursts {
  int32_t requests = 0;
  double every_s = 0;

  static Result<Bursts> parse(std::string_view text);
};

// One line of a trace; see read_trace().
struct TraceEntry {
  double at_s = 0;
  std::optional<int32_t> prompt_tokens;  // else from the distribution
  std::optional<int32_t> output_tokens;
  std::string tenant;  // empty: by weight
  std::string cls;
};

struct Workload {
  double rate = 1;                // requests/s of a Poisson process, unless:
  std::optional<Bursts> bursts;   // these come instead
  std::vector<TraceEntry> trace;  // or these, when not empty
  double duration_s = 0;          // the end of the schedule; 0: by requests
  int64_t requests = 0;           // most requests; 0: by duration
  Distribution prompt_tokens = Distribution::fixed(256);
  Distribution output_tokens = Distribution::fixed(64);
  std::vector<Sender> tenants;  // empty: one without a key
  std::vector<Sender> classes;  // empty: the server's default
  int32_t turns = 1;            // of each conversation, each with all that was said before
  int32_t shared_prefix_tokens = 0;
  uint64_t seed = 0;
};

struct PlannedRequest {
  TimeNs at_ns = 0;  // after the start
  int32_t tenant = 0;
  int32_t cls = -1;  // -1: none named
  int32_t turn = 0;
  int32_t output_tokens = 1;
  uint64_t text_seed = 0;       // of the conversation
  std::vector<int32_t> pieces;  // tokens said by user, assistant, user ...; the last is new

  int64_t prompt_tokens() const;  // without the shared prefix
};

// In order of time. Errors: nothing to send, or more than kMaxPlannedRequests.
Result<std::vector<PlannedRequest>> plan_requests(const Workload& workload);

// JSON lines: {"at_s": 0.5} or {"timestamp": 500} (ms), with "prompt_tokens" or "input_length",
// "output_tokens" or "output_length", "tenant" and "class" where known. Errors name file and line.
Result<std::vector<TraceEntry>> read_trace(const std::string& path);

// One Sender a line; blank lines and those that start with # are skipped.
Result<std::vector<Sender>> read_senders(const std::string& path);

}  // namespace puna::load
