// SPDX-License-Identifier: Apache-2.0
// What the server knows about itself: flags and cells that its threads write and /ready and
// /metrics read.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "api/server.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "base/task_family.h"
#include "engine/request.h"

namespace puna::api {

// What probes must know of one engine.
struct EngineWatch {
  std::atomic<int> unanswered{0};        // submitted, and no token came yet
  std::atomic<TimeNs> pending_since{0};  // the first submission after the last step that ended
};

struct ServerStatus {
  explicit ServerStatus(size_t num_engines = 1) : engines(num_engines), routed(num_engines) {}

  static constexpr std::array<int, 14> kCountedStatuses = {200, 400, 401, 403, 404, 405, 408,
                                                           413, 417, 429, 431, 500, 503, 505};
  // Refusals by reason: those of the engine in the order of engine::RefusalReason, then the rate
  // limit.
  static constexpr size_t kNumReasons = 5;
  static constexpr size_t kRateLimited = 4;

  std::atomic<bool> ready{false};
  std::atomic<bool> draining{false};
  std::atomic<bool> stopping{false};  // queued work is no longer worth doing

  std::vector<EngineWatch> engines;
  std::atomic<int> connections{0};     // open now
  std::atomic<int> answering{0};       // whole requests whose answer is not written yet
  std::atomic<int64_t> body_bytes{0};  // of requests that are being read
  Counter connections_accepted;
  Counter connections_refused;  // over max_connections
  Counter clients_gone;         // left while their answer was being made
  Counter write_timeouts;
  // [class][reason]
  std::array<std::array<Counter, kNumReasons>, engine::kNumClasses> refusals;
  // [variant][family]: taken requests; counted where there are several variants.
  std::vector<std::array<Counter, kNumTaskFamilies>> routed;
  Counter canaries;        // requests of our own that prove that an idle engine still steps
  Counter early_refusals;  // of them: before the prompt was tokenised
  std::array<Counter, kCountedStatuses.size()> responses;

  HostUse host_use() const { return {connections.load(), body_bytes.load()}; }
  void count_response(int status) {
    for (size_t i = 0; i < kCountedStatuses.size(); ++i) {
      if (kCountedStatuses[i] == status) responses[i].add();
    }
  }
};

// A submitted request for which the engine has shown nothing yet: while it lives, an engine that
// completes no step is stuck.
class Unanswered {
 public:
  Unanswered(EngineWatch& watch, TimeNs last_step_ns) : watch_(watch) {
    if (watch_.pending_since.load() <= last_step_ns) {
      watch_.pending_since.store(SteadyClock().now_ns());
    }
    watch_.unanswered.fetch_add(1);
  }
  ~Unanswered() { watch_.unanswered.fetch_sub(1); }
  Unanswered(const Unanswered&) = delete;
  Unanswered& operator=(const Unanswered&) = delete;

 private:
  EngineWatch& watch_;
};

// A request that came in whole and whose answer is not written to the socket yet: a drain waits for
// these.
class Answering {
 public:
  explicit Answering(ServerStatus& status) : status_(status) { status_.answering.fetch_add(1); }
  ~Answering() { status_.answering.fetch_sub(1); }
  Answering(const Answering&) = delete;
  Answering& operator=(const Answering&) = delete;

 private:
  ServerStatus& status_;
};

}  // namespace puna::api
