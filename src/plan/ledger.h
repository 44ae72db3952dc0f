// SPDX-License-Identifier: Apache-2.0
// The plan beside what is used now: /v1/ledger and puna:memory_bytes{owner=}, and the same of a GPU
// where one computes. Where several variants of a model are served, the sums by owner and each
// variant's part. Reads the numbers that it is given and /proc; any thread, never waits.
//
//   Ledger ledger(plan, device);
//   ledger.json({.kv_usage = 0.5, ...});
//   Ledger both({{"base", plan}, {"q4", other}});
//   both.json(uses);                              // one LiveUse a variant
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "plan/device_memory.h"
#include "plan/memory_plan.h"

namespace puna::plan {

struct LiveUse {
  double kv_usage = 0;       // of the pool's blocks, held by sequences
  double host_kv_usage = 0;  // of the places for blocks of paused requests
  int64_t requests_running = 0;
  int64_t requests_waiting = 0;
  int64_t tokens_waiting = 0;
  int64_t request_bytes = 0;
  // Of the process; of several variants, the first has them.
  int64_t body_bytes = 0;
  int64_t connections = 0;
  uint64_t allocs_after_seal = 0;
};

class Ledger {
 public:
  struct Part {
    std::string variant;
    MemoryPlan plan;
  };
  using Bytes = std::array<uint64_t, kNumOwners>;

  // The host's plan; where the KV pool is a GPU's, the plan has its number of blocks.
  explicit Ledger(const MemoryPlan& plan, std::optional<DeviceMemory> device = std::nullopt)
      : parts_{{.variant = {}, .plan = plan}}, device_(std::move(device)) {}
  // Of several variants; the first plan has what the process has once.
  explicit Ledger(std::vector<Part> parts) : parts_(std::move(parts)) {}

  // Of the host: what is reserved once is used in full; the rest by count. `uses`: as the parts.
  Bytes used(std::span<const LiveUse> uses) const;
  std::string json(std::span<const LiveUse> uses) const;
  // Prometheus text.
  std::string metrics(std::span<const LiveUse> uses) const;

  Bytes used(const LiveUse& use) const { return used(std::span(&use, 1)); }
  std::string json(const LiveUse& use) const { return json(std::span(&use, 1)); }
  std::string metrics(const LiveUse& use) const { return metrics(std::span(&use, 1)); }

 private:
  Bytes planned() const;
  uint64_t budget() const;
  std::string variants_json(std::span<const LiveUse> uses) const;
  std::string variant_metrics(std::span<const LiveUse> uses) const;
  uint64_t used_on_device(const DeviceOwner& owner, const LiveUse& use) const;

  const std::vector<Part> parts_;
  const std::optional<DeviceMemory> device_;
};

}  // namespace puna::plan
