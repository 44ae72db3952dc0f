// SPDX-License-Identifier: Apache-2.0
// The plan beside what is used now: /v1/ledger and puna:memory_bytes{owner=}, and the same of a GPU
// where one computes. Reads the numbers that it is given and /proc; any thread, never waits.
//
//   Ledger ledger(plan, device);
//   ledger.json({.kv_usage = 0.5, ...});
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "plan/device_memory.h"
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
  // The host's plan; where the KV pool is a GPU's, the plan has its number of blocks.
  explicit Ledger(const MemoryPlan& plan, std::optional<DeviceMemory> device = std::nullopt)
      : plan_(plan), device_(std::move(device)) {}

  // Of the host: what is reserved once is used in full; the rest by count.
  std::array<uint64_t, kNumOwners> used(const LiveUse& use) const;
  std::string json(const LiveUse& use) const;
  // Prometheus text.
  std::string metrics(const LiveUse& use) const;

 private:
  uint64_t used_on_device(const DeviceOwner& owner, const LiveUse& use) const;

  const MemoryPlan plan_;
  const std::optional<DeviceMemory> device_;
};

}  // namespace puna::plan
