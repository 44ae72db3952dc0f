// SPDX-License-Identifier: Apache-2.0
// What became of one planned request. Times are nanoseconds after the start of the run.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"

namespace puna::load {

enum class Outcome : uint8_t {
  kDone,       // a whole answer
  kRefused,    // the server said so in the end: 429 or 503
  kFailed,     // no connection, another status, a broken or late answer
  kCancelled,  // the run was stopped before
};

struct Refusal {
  int status = 0;
  TimeNs sent_ns = 0;
  TimeNs took_ns = 0;
  std::optional<TimeNs> retry_after_ns = std::nullopt;
};

struct Record {
  int32_t tenant = 0;
  int32_t cls = -1;
  int32_t turn = 0;
  int64_t wanted_tokens = 0;  // planned prompt and answer

  Outcome outcome = Outcome::kCancelled;
  int status = 0;     // of the last attempt; 0: no answer at all
  std::string error;  // of a failure
  std::string finish_reason;
  std::string text;            // of the answer, where the run keeps it
  TimeNs due_ns = 0;           // when the plan says
  TimeNs sent_ns = 0;          // the last attempt
  TimeNs first_ns = 0;         // its first text
  TimeNs last_ns = 0;          // its last text
  TimeNs end_ns = 0;           // the whole answer, or the failure
  std::vector<float> gaps_ms;  // between pieces of text
  int32_t prompt_tokens = 0;
  int32_t cached_tokens = 0;
  int32_t output_tokens = 0;
  double quoted_ttft_ms = 0;       // the server's p95, as Puna tells it; 0: none
  bool counted_by_server = false;  // by usage; else pieces of text
  std::vector<Refusal> refusals;   // attempts before the last, and the last if that was one

  bool done() const { return outcome == Outcome::kDone; }
};

inline double ms_between(TimeNs from_ns, TimeNs to_ns) {
  return static_cast<double>(to_ns - from_ns) / kNsPerMs;
}

}  // namespace puna::load
