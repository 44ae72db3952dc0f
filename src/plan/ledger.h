// SPDX-License-Identifier: Apache-2.0
// The plan beside what is used now: /v1/ledger and puna:memory_bytes{owner=}. Reads the numbers
// that it is given and /proc; any thread, never waits.
//
//   Ledger ledger(plan);
//   ledger.json({.kv_usage = 0.5, ...});
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "plan/memory_plan.h"

namespace puna::plan {

struct LiveUse {
  double kv_usage = 0;  // of the pool's blocks, held by sequences
  int64_t requests_running = 0;
  int64_t requests_waiting = 0;
  int64_t tokens_waiting = 0;
  int64_t request_bytes = 0;
  int64_t body_bytes = 0;
  int64_t connections = 0;
  uint64_t allocs_after_seal = 0;
};

class Ledger {
 public:
  explicit Ledger(const MemoryPlan& plan) : plan_(plan) {}

  // What is reserved once is used in full; the rest by count.
  std::array<uint64_t, kNumOwners> used(const LiveUse& use) const;
  std::string json(const LiveUse& use) const;
  // Prometheus text.
  std::string metrics(const LiveUse& use) const;

 private:
  const MemoryPlan plan_;
};

}  // namespace puna::plan
