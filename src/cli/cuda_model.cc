// SPDX-License-Identifier: Apache-2.0
#include "cli/cuda_model.h"

#include <fmt/format.h>

#include <array>
#include <iterator>
#include <string_view>
#include <utility>

#include "kv/block_id.h"
#include "plan/byte_size.h"
#include "plan/system_memory.h"

namespace puna::cli {
namespace {

struct Owner {
  std::string_view name;
  std::string_view note;
  uint64_t bytes;
};

std::array<Owner, 4> owners_of(const engine::CudaBackendFacts& facts) {
  return {{{"weights", "bf16", facts.weights},
           {"kv_pool", "bf16 keys and values", facts.kv},
           {"activations", "of the largest step", facts.activations},
           {"attention", "partial results of decode rows", facts.attention}}};
}

// What the host holds: nothing of the model, its own buffers, and the pinned ones.
Result<plan::MemoryPlan> host_plan(const ModelSource& source, const ModelFlags& flags,
                                   const LoadSize& size, int32_t max_model_len, uint64_t pinned) {
  ASSIGN_OR_RETURN(const plan::SystemMemory system, plan::read_system_memory());
  plan::PlanRequest request;
  request.model = flags.model;
  request.max_model_len = max_model_len;
  request.max_num_seqs = size.max_num_seqs;
  request.max_batch_tokens = size.max_batch_tokens;
  request.max_queued_requests = size.max_queued_requests;
  request.max_queued_tokens = size.max_queued_tokens;
  request.max_connections = size.max_connections;
  request.runtime_bytes = plan::resident_anonymous_bytes();
  if (!flags.memory_budget.empty()) {
    auto budget = plan::parse_budget(flags.memory_budget, system.total);
    if (!budget.ok()) return std::move(budget).error().with_context("--memory-budget");
    request.budget_bytes = *budget;
  }
  const auto cost = [&](const engine::CpuBackendConfig& config) {
    engine::CpuBackendBytes bytes;
    bytes.kv = static_cast<uint64_t>(config.num_blocks) * kv::kBlockTokens;  // for the arithmetic
    bytes.activations = pinned;
    return bytes;
  };
  ASSIGN_OR_RETURN(plan::MemoryPlan plan,
                   plan::plan_memory(cost, source.spec().max_position, request, system));
  plan.kv_pool = 0;
  return plan;
}

}  // namespace

std::string device_memory_table(const engine::CudaBackendFacts& facts) {
  std::string out = fmt::format("on {}:\n", facts.device);
  uint64_t total = 0;
  for (const Owner& owner : owners_of(facts)) {
    total += owner.bytes;
    fmt::format_to(std::back_inserter(out), "  {:<16} {:>10}  {}\n", owner.name,
                   plan::format_bytes(owner.bytes), owner.note);
  }
  fmt::format_to(std::back_inserter(out), "  {:<16} {:>10}  of {} free before, {} taken\n", "total",
                 plan::format_bytes(total), plan::format_bytes(facts.free_before),
                 plan::format_bytes(facts.free_before - facts.free_after));
  return out;
}

std::string device_memory_metrics(const engine::CudaBackendFacts& facts) {
  std::string out =
      "# HELP puna:device_memory_bytes Planned memory of the GPU by owner.\n"
      "# TYPE puna:device_memory_bytes gauge\n";
  for (const Owner& owner : owners_of(facts)) {
    fmt::format_to(std::back_inserter(out), "puna:device_memory_bytes{{owner=\"{}\"}} {}\n",
                   owner.name, owner.bytes);
  }
  return out;
}

Result<PlannedBackend> load_cuda_backend(const ModelSource& source, const ModelFlags& flags,
                                         const LoadSize& size) {
  const formats::ModelSpec& spec = source.spec();
  const int32_t wanted = size.max_model_len > 0 ? size.max_model_len : flags.max_model_len;
  engine::CudaBackendConfig config;
  config.device = cuda_ordinal(flags).value_or(0);
  config.max_num_seqs = size.max_num_seqs;
  config.max_batch_tokens = size.max_batch_tokens;
  config.max_model_len = wanted > 0 ? wanted : spec.max_position;
  if (config.max_model_len > spec.max_position) {
    return Error(ErrorCode::kInvalidArgument,
                 "--max-model-len {} is beyond the {} positions that {} was trained for",
                 config.max_model_len, spec.max_position, spec.name);
  }
  auto made = source.checkpoint() != nullptr
                  ? engine::make_cuda_backend(*source.checkpoint(), config)
                  : engine::make_random_cuda_backend(spec, config);
  if (!made.ok()) return std::move(made).error().with_context("--device " + flags.device);
  PlannedBackend planned;
  planned.backend = std::move(made->backend);
  planned.gpu = std::move(made->facts);
  ASSIGN_OR_RETURN(planned.plan,
                   host_plan(source, flags, size, config.max_model_len, planned.gpu->pinned));
  planned.plan.num_blocks = planned.backend->limits().num_blocks;
  planned.plan.max_model_len = config.max_model_len;
  return planned;
}

}  // namespace puna::cli
