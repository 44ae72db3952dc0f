// SPDX-License-Identifier: Apache-2.0
#include "plan/ledger.h"

#include <fmt/format.h>

#include <cmath>
#include <iterator>

#include "kv/block_id.h"
#include "plan/system_memory.h"

namespace puna::plan {
namespace {

int64_t blocks_used(const MemoryPlan& plan, const LiveUse& use) {
  return std::llround(use.kv_usage * plan.num_blocks);
}

// Of a pool of so many bytes.
uint64_t kv_used(uint64_t pool, const MemoryPlan& plan, const LiveUse& use) {
  if (plan.num_blocks == 0) return pool;
  return pool / static_cast<uint64_t>(plan.num_blocks) *
         static_cast<uint64_t>(blocks_used(plan, use));
}

void append_head(std::string& out, std::string_view name, std::string_view help) {
  fmt::format_to(std::back_inserter(out), "# HELP {0} {1}\n# TYPE {0} gauge\n", name, help);
}

void append_owner(std::string& out, std::string_view name, std::string_view owner, uint64_t bytes) {
  fmt::format_to(std::back_inserter(out), "{}{{owner=\"{}\"}} {}\n", name, owner, bytes);
}

void append_family(std::string& out, std::string_view name, std::string_view help,
                   const std::array<uint64_t, kNumOwners>& bytes) {
  append_head(out, name, help);
  for (size_t i = 0; i < kNumOwners; ++i) {
    append_owner(out, name, owner_name(static_cast<Owner>(i)), bytes[i]);
  }
}

void append_value(std::string& out, std::string_view name, std::string_view help,
                  std::string_view type, uint64_t value) {
  fmt::format_to(std::back_inserter(out), "# HELP {0} {1}\n# TYPE {0} {2}\n{0} {3}\n", name, help,
                 type, value);
}

}  // namespace

std::array<uint64_t, kNumOwners> Ledger::used(const LiveUse& use) const {
  std::array<uint64_t, kNumOwners> bytes = plan_.bytes;
  bytes[index_of(Owner::kKvPool)] = kv_used(plan_.of(Owner::kKvPool), plan_, use);
  bytes[index_of(Owner::kRequests)] = static_cast<uint64_t>(use.request_bytes);
  bytes[index_of(Owner::kBodies)] = static_cast<uint64_t>(use.body_bytes);
  if (plan_.host.max_connections > 0) {
    bytes[index_of(Owner::kConnections)] = plan_.of(Owner::kConnections) /
                                           static_cast<uint64_t>(plan_.host.max_connections) *
                                           static_cast<uint64_t>(use.connections);
  }
  return bytes;
}

uint64_t Ledger::used_on_device(const DeviceOwner& owner, const LiveUse& use) const {
  return owner.name == kDeviceKvPool ? kv_used(owner.bytes, plan_, use) : owner.bytes;
}

std::string Ledger::json(const LiveUse& use) const {
  const std::array<uint64_t, kNumOwners> now = used(use);
  std::string out = fmt::format(
      R"({{"budget_bytes":{},"planned_bytes":{},"program_bytes":{},"resident_bytes":{},"owners":[)",
      plan_.budget, plan_.total(), plan_.program, resident_bytes());
  for (size_t i = 0; i < kNumOwners; ++i) {
    fmt::format_to(std::back_inserter(out),
                   R"({}{{"owner":"{}","planned_bytes":{},"used_bytes":{}}})", i == 0 ? "" : ",",
                   owner_name(static_cast<Owner>(i)), plan_.bytes[i], now[i]);
  }
  fmt::format_to(std::back_inserter(out),
                 R"(],"kv":{{"blocks":{},"blocks_used":{},"tokens":{}}},)"
                 R"("queue":{{"requests":{},"tokens":{},"running":{}}},)"
                 R"("connections":{{"open":{},"limit":{}}},"allocs_after_seal":{})",
                 plan_.num_blocks, blocks_used(plan_, use),
                 int64_t{plan_.num_blocks} * kv::kBlockTokens, use.requests_waiting,
                 use.tokens_waiting, use.requests_running, use.connections,
                 plan_.host.max_connections, use.allocs_after_seal);
  if (device_) {
    fmt::format_to(
        std::back_inserter(out),
        R"(,"device":{{"name":"{}","free_before_bytes":{},"planned_bytes":{},"taken_bytes":{},)"
        R"("owners":[)",
        device_->name, device_->free_before, device_->total(),
        device_->free_before - device_->free_after);
    for (const DeviceOwner& owner : device_->owners) {
      fmt::format_to(std::back_inserter(out),
                     R"({}{{"owner":"{}","planned_bytes":{},"used_bytes":{}}})",
                     &owner == device_->owners.data() ? "" : ",", owner.name, owner.bytes,
                     used_on_device(owner, use));
    }
    out += "]}";
  }
  out += '}';
  return out;
}

std::string Ledger::metrics(const LiveUse& use) const {
  std::string out;
  append_family(out, "puna:memory_bytes", "Planned memory by owner.", plan_.bytes);
  append_family(out, "puna:memory_used_bytes", "Of it, used now.", used(use));
  append_value(out, "puna:memory_budget_bytes", "What the plan must fit in.", "gauge",
               plan_.budget);
  append_value(out, "puna:memory_resident_bytes", "Resident memory of the process, measured.",
               "gauge", resident_bytes());
  append_value(out, "puna:allocs_after_seal_total",
               "Heap allocations of the step loop after start; 0 unless something is broken.",
               "counter", use.allocs_after_seal);
  if (!device_) return out;
  append_head(out, "puna:device_memory_bytes", "Planned memory of the GPU by owner.");
  for (const DeviceOwner& owner : device_->owners) {
    append_owner(out, "puna:device_memory_bytes", owner.name, owner.bytes);
  }
  append_head(out, "puna:device_memory_used_bytes", "Of it, used now.");
  for (const DeviceOwner& owner : device_->owners) {
    append_owner(out, "puna:device_memory_used_bytes", owner.name, used_on_device(owner, use));
  }
  return out;
}

}  // namespace puna::plan
