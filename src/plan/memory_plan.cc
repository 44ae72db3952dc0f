// SPDX-License-Identifier: Apache-2.0
#include "plan/memory_plan.h"

#include <fmt/format.h>

#include <iterator>

#include "kv/block_id.h"
#include "plan/byte_size.h"

namespace puna::plan {
namespace {

struct OwnerText {
  std::string_view name;
  std::string_view row;   // in the table
  std::string_view note;  // empty: made from the plan
};

constexpr std::array<OwnerText, kNumOwners> kOwners = {{
    {"weights_mapped", "weights, mapped", "used from the file's pages"},
    {"weights_packed", "weights, packed", "copies in the kernels' layout"},
    {"kv_pool", "KV pool", ""},
    {"kv_index", "KV index", "block tables, prefix cache"},
    {"host_kv", "host KV", ""},
    {"activations", "activations", ""},
    {"sampling", "sampling", ""},
    {"requests", "requests", "prompts and answers, waiting or running"},
    {"request_bodies", "request bodies", ""},
    {"connections", "connections", ""},
    {"tokenizer", "tokenizer", "vocabulary, merges, the file's tables"},
    {"threads", "threads", "stacks"},
    {"runtime", "runtime", "heap, libraries' data"},
}};

std::string note_of(const MemoryPlan& plan, Owner owner) {
  const HostLimits& host = plan.host;
  switch (owner) {
    case Owner::kKvPool:
      return fmt::format("{}: {} tokens in {} blocks, context {}", plan.kv_dtype(),
                         int64_t{plan.num_blocks} * kv::kBlockTokens, plan.num_blocks,
                         plan.max_model_len);
    case Owner::kHostKv:
      return fmt::format("{} tokens of paused requests, pinned",
                         int64_t{plan.num_host_blocks} * kv::kBlockTokens);
    case Owner::kActivations:
      return fmt::format("of a step of {} tokens", plan.max_batch_tokens);
    case Owner::kSampling:
      return fmt::format("of {} sequences at once", plan.max_num_seqs);
    case Owner::kBodies:
      return fmt::format("each up to {}, and their parsing",
                         format_bytes(static_cast<uint64_t>(host.max_body_bytes)));
    case Owner::kConnections:
      return fmt::format("at most {}", host.max_connections);
    default:
      return std::string(kOwners[index_of(owner)].note);
  }
}

}  // namespace

std::string_view owner_name(Owner owner) { return kOwners[index_of(owner)].name; }

std::string_view kv_type_name(kernels::KvType type) {
  switch (type) {
    case kernels::KvType::kF32:
      return "f32";
    case kernels::KvType::kBF16:
      return "bf16";
    case kernels::KvType::kInt8:
      return "int8";
  }
  return "";
}

std::string_view MemoryPlan::kv_dtype() const { return on_device ? "f16" : kv_type_name(kv_type); }

uint64_t MemoryPlan::fixed() const {
  uint64_t sum = 0;
  for (size_t i = 0; i < kNumOwners; ++i) {
    const auto owner = static_cast<Owner>(i);
    if (owner != Owner::kKvPool && owner != Owner::kKvIndex) sum += bytes[i];
  }
  return sum;
}

std::string MemoryPlan::table() const {
  std::string out;
  const auto row = [&out](std::string_view owner, uint64_t owned, const std::string& note) {
    fmt::format_to(std::back_inserter(out), "  {:<16} {:>10}  {}\n", owner, format_bytes(owned),
                   note);
  };
  fmt::format_to(std::back_inserter(out), "memory plan:\n");
  for (size_t i = 0; i < kNumOwners; ++i) {
    if (bytes[i] > 0) row(kOwners[i].row, bytes[i], note_of(*this, static_cast<Owner>(i)));
  }
  const std::string_view limit = on_device      ? "the device"
                                 : budget_given ? "--memory-budget"
                                                : "available now";
  row("total", total(), fmt::format("of {} ({})", format_bytes(budget), limit));
  if (program > 0) row("program", program, "pages of its file and libraries, not in the total");
  if (loading > 0) row("while loading", loading, "of the file, before the KV pool is taken");
  return out;
}

}  // namespace puna::plan
