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

void append_family(std::string& out, std::string_view name, std::string_view help,
                   const std::array<uint64_t, kNumOwners>& bytes) {
  fmt::format_to(std::back_inserter(out), "# HELP {0} {1}\n# TYPE {0} gauge\n", name, help);
  for (size_t i = 0; i < kNumOwners; ++i) {
    fmt::format_to(std::back_inserter(out), "{}{{owner=\"{}\"}} {}\n", name,
                   owner_name(static_cast<Owner>(i)), bytes[i]);
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
  if (plan_.num_blocks > 0) {
    bytes[index_of(Owner::kKvPool)] = plan_.of(Owner::kKvPool) /
                                      static_cast<uint64_t>(plan_.num_blocks) *
                                      static_cast<uint64_t>(blocks_used(plan_, use));
  }
  bytes[index_of(Owner::kRequests)] = static_cast<uint64_t>(use.request_bytes);
  bytes[index_of(Owner::kBodies)] = static_cast<uint64_t>(use.body_bytes);
  if (plan_.host.max_connections > 0) {
    bytes[index_of(Owner::kConnections)] = plan_.of(Owner::kConnections) /
                                           static_cast<uint64_t>(plan_.host.max_connections) *
                                           static_cast<uint64_t>(use.connections);
  }
  return bytes;
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
                 R"("connections":{{"open":{},"limit":{}}},"allocs_after_seal":{}}})",
                 plan_.num_blocks, blocks_used(plan_, use),
                 int64_t{plan_.num_blocks} * kv::kBlockTokens, use.requests_waiting,
                 use.tokens_waiting, use.requests_running, use.connections,
                 plan_.host.max_connections, use.allocs_after_seal);
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
  return out;
}

}  // namespace puna::plan
