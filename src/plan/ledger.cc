// SPDX-License-Identifier: Apache-2.0
#include "plan/ledger.h"

#include <fmt/format.h>

#include <cmath>
#include <iterator>
#include <numeric>

#include "base/check.h"
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

// Of one plan.
Ledger::Bytes used_bytes(const MemoryPlan& plan, const LiveUse& use) {
  Ledger::Bytes bytes = plan.bytes;
  bytes[index_of(Owner::kKvPool)] = kv_used(plan.of(Owner::kKvPool), plan, use);
  bytes[index_of(Owner::kHostKv)] = static_cast<uint64_t>(
      std::llround(use.host_kv_usage * static_cast<double>(plan.of(Owner::kHostKv))));
  bytes[index_of(Owner::kRequests)] = static_cast<uint64_t>(use.request_bytes);
  bytes[index_of(Owner::kBodies)] = static_cast<uint64_t>(use.body_bytes);
  if (plan.host.max_connections > 0) {
    bytes[index_of(Owner::kConnections)] = plan.of(Owner::kConnections) /
                                           static_cast<uint64_t>(plan.host.max_connections) *
                                           static_cast<uint64_t>(use.connections);
  }
  return bytes;
}

uint64_t sum_of(const Ledger::Bytes& bytes) {
  return std::accumulate(bytes.begin(), bytes.end(), uint64_t{0});
}

// What the queues and pools of all variants hold together.
struct Totals {
  int64_t blocks = 0;
  int64_t blocks_used = 0;
  int64_t requests = 0;
  int64_t tokens = 0;
  int64_t running = 0;
};
void add(Totals& totals, const MemoryPlan& plan, const LiveUse& use) {
  totals.blocks += plan.num_blocks;
  totals.blocks_used += blocks_used(plan, use);
  totals.requests += use.requests_waiting;
  totals.tokens += use.tokens_waiting;
  totals.running += use.requests_running;
}

void append_owners_json(std::string& out, const Ledger::Bytes& planned, const Ledger::Bytes& used) {
  for (size_t i = 0; i < kNumOwners; ++i) {
    fmt::format_to(std::back_inserter(out),
                   R"({}{{"owner":"{}","planned_bytes":{},"used_bytes":{}}})", i == 0 ? "" : ",",
                   owner_name(static_cast<Owner>(i)), planned[i], used[i]);
  }
}

void append_totals_json(std::string& out, const Totals& totals) {
  fmt::format_to(std::back_inserter(out),
                 R"("kv":{{"blocks":{},"blocks_used":{},"tokens":{}}},)"
                 R"("queue":{{"requests":{},"tokens":{},"running":{}}})",
                 totals.blocks, totals.blocks_used, totals.blocks * kv::kBlockTokens,
                 totals.requests, totals.tokens, totals.running);
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

Ledger::Bytes Ledger::used(std::span<const LiveUse> uses) const {
  CHECK_EQ(uses.size(), parts_.size());
  Bytes bytes = {};
  for (size_t part = 0; part < parts_.size(); ++part) {
    const Bytes of_part = used_bytes(parts_[part].plan, uses[part]);
    for (size_t i = 0; i < kNumOwners; ++i) bytes[i] += of_part[i];
  }
  return bytes;
}

Ledger::Bytes Ledger::planned() const {
  Bytes bytes = {};
  for (const Part& part : parts_) {
    for (size_t i = 0; i < kNumOwners; ++i) bytes[i] += part.plan.bytes[i];
  }
  return bytes;
}

uint64_t Ledger::budget() const {
  uint64_t sum = 0;
  for (const Part& part : parts_) sum += part.plan.budget;
  return sum;
}

uint64_t Ledger::used_on_device(const DeviceOwner& owner, const LiveUse& use) const {
  return owner.name == kDeviceKvPool ? kv_used(owner.bytes, parts_.front().plan, use) : owner.bytes;
}

// `,"variants":[…]` where there are several.
std::string Ledger::variants_json(std::span<const LiveUse> uses) const {
  if (parts_.size() < 2) return {};
  std::string out = R"(,"variants":[)";
  for (size_t i = 0; i < parts_.size(); ++i) {
    const MemoryPlan& plan = parts_[i].plan;
    const Bytes now = used_bytes(plan, uses[i]);
    // A name has no character that JSON would escape (cli/models_file.cc).
    fmt::format_to(std::back_inserter(out),
                   R"({}{{"variant":"{}","kv_dtype":"{}","planned_bytes":{},"used_bytes":{},)"
                   R"("owners":[)",
                   i == 0 ? "" : ",", parts_[i].variant, kv_type_name(plan.kv_type), plan.total(),
                   sum_of(now));
    append_owners_json(out, plan.bytes, now);
    out += "],";
    Totals totals;
    add(totals, plan, uses[i]);
    append_totals_json(out, totals);
    out += '}';
  }
  out += ']';
  return out;
}

std::string Ledger::json(std::span<const LiveUse> uses) const {
  const Bytes plan = planned();
  std::string out = fmt::format(
      R"({{"budget_bytes":{},"planned_bytes":{},"program_bytes":{},"resident_bytes":{},"owners":[)",
      budget(), sum_of(plan), parts_.front().plan.program, resident_bytes());
  append_owners_json(out, plan, used(uses));
  out += "],";
  Totals totals;
  for (size_t i = 0; i < parts_.size(); ++i) add(totals, parts_[i].plan, uses[i]);
  append_totals_json(out, totals);
  const LiveUse& process = uses.front();
  fmt::format_to(
      std::back_inserter(out), R"(,"connections":{{"open":{},"limit":{}}},"allocs_after_seal":{})",
      process.connections, parts_.front().plan.host.max_connections, process.allocs_after_seal);
  out += variants_json(uses);
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
                     used_on_device(owner, process));
    }
    out += "]}";
  }
  out += '}';
  return out;
}

std::string Ledger::variant_metrics(std::span<const LiveUse> uses) const {
  if (parts_.size() < 2) return {};
  std::string out;
  const auto family = [&](std::string_view name, std::string_view help, auto bytes_of) {
    append_head(out, name, help);
    for (size_t part = 0; part < parts_.size(); ++part) {
      const Bytes bytes = bytes_of(part);
      for (size_t i = 0; i < kNumOwners; ++i) {
        fmt::format_to(std::back_inserter(out), "{}{{variant=\"{}\",owner=\"{}\"}} {}\n", name,
                       parts_[part].variant, owner_name(static_cast<Owner>(i)), bytes[i]);
      }
    }
  };
  family("puna:variant_memory_bytes", "Planned memory by variant and owner.",
         [&](size_t part) { return parts_[part].plan.bytes; });
  family("puna:variant_memory_used_bytes", "Of it, used now.",
         [&](size_t part) { return used_bytes(parts_[part].plan, uses[part]); });
  return out;
}

std::string Ledger::metrics(std::span<const LiveUse> uses) const {
  std::string out;
  append_family(out, "puna:memory_bytes", "Planned memory by owner.", planned());
  append_family(out, "puna:memory_used_bytes", "Of it, used now.", used(uses));
  append_value(out, "puna:memory_budget_bytes", "What the plan must fit in.", "gauge", budget());
  append_value(out, "puna:memory_resident_bytes", "Resident memory of the process, measured.",
               "gauge", resident_bytes());
  append_value(out, "puna:allocs_after_seal_total",
               "Heap allocations of the step loop after start; 0 unless something is broken.",
               "counter", uses.front().allocs_after_seal);
  out += variant_metrics(uses);
  if (!device_) return out;
  append_head(out, "puna:device_memory_bytes", "Planned memory of the GPU by owner.");
  for (const DeviceOwner& owner : device_->owners) {
    append_owner(out, "puna:device_memory_bytes", owner.name, owner.bytes);
  }
  append_head(out, "puna:device_memory_used_bytes", "Of it, used now.");
  for (const DeviceOwner& owner : device_->owners) {
    append_owner(out, "puna:device_memory_used_bytes", owner.name,
                 used_on_device(owner, uses.front()));
  }
  return out;
}

}  // namespace puna::plan
