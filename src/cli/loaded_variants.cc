// SPDX-License-Identifier: Apache-2.0
#include "cli/loaded_variants.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

#include "cli/load_progress.h"
#include "cli/terminal.h"
#include "cli/warm_up.h"
#include "engine/cpu_backend.h"
#include "kernels/cpu/isa.h"
#include "plan/byte_size.h"
#include "plan/system_memory.h"
#include "plan/variant_plans.h"

namespace puna::cli {
namespace {

constexpr TimeNs kVariantWarmUpBudget = 100 * kNsPerMs;

}  // namespace

Result<> LoadedVariants::plan_all(Parts& parts, const LoadSize& size,
                                  std::vector<plan::PlanRequest>& requests) {
  const OpenedVariants& opened = parts.opened;
  ASSIGN_OR_RETURN(const plan::SystemMemory system, plan::read_system_memory());
  std::vector<plan::VariantToPlan> to_plan;
  for (size_t i = 0; i < opened.sources.size(); ++i) {
    ASSIGN_OR_RETURN(plan::PlanRequest request,
                     plan_request(opened.flags[i], size, opened.tokenizer_bytes, system));
    request.beside_another = i > 0;
    if (i > 0) request.runtime_bytes = 0;
    requests.push_back(request);
    const formats::Checkpoint& checkpoint = *opened.sources[i].checkpoint();
    to_plan.push_back({.name = opened.configs[i].name,
                       .cost =
                           [&checkpoint](const engine::CpuBackendConfig& config) {
                             return engine::cpu_backend_bytes(checkpoint, config);
                           },
                       .request = request});
  }
  ASSIGN_OR_RETURN(parts.plans, plan::plan_variants(
                                    to_plan, opened.sources.front().spec().max_position, system));
  std::vector<plan::Ledger::Part> ledger;
  for (size_t i = 0; i < parts.plans.size(); ++i) {
    ledger.push_back({.variant = opened.configs[i].name, .plan = parts.plans[i]});
  }
  parts.ledger.emplace(std::move(ledger));
  return Ok{};
}

Result<> LoadedVariants::load_one(Parts& parts, size_t index, const plan::PlanRequest& request,
                                  const LoadSize& size) {
  const plan::MemoryPlan& plan = parts.plans[index];
  const ModelSource& source = parts.opened.sources[index];
  engine::CpuBackendConfig config = plan::backend_config(plan, request);
  config.pool = parts.pool.get();
  LoadProgressPrinter printer(stderr_is_terminal(), print_to_stderr);
  if (source.checkpoint()->weight_bytes() > LoadProgressPrinter::kSmallestFile) {
    config.load_progress = [&](uint64_t done, uint64_t total) { printer.update(done, total); };
  }
  auto backend = engine::make_cpu_backend(*source.checkpoint(), config);
  if (!backend.ok())
    return std::move(backend).error().with_context(parts.opened.configs[index].where);
  parts.backends.push_back(
      std::make_unique<engine::TurnBackend>(std::move(backend).value(), parts.turn));
  source.drop_pages();
  warm_up(*parts.backends.back(), parts.clock, kVariantWarmUpBudget);

  engine::EngineConfig engine = engine_config(size);
  engine.prefill_chunk_tokens = std::min(engine.prefill_chunk_tokens, plan.max_batch_tokens);
  engine.max_request_bytes = plan.host.max_request_bytes;
  engine.model_digest = source.digest();
  parts.engines.push_back(std::make_unique<engine::Engine>(engine, *parts.backends.back(),
                                                           *parts.opened.tokenizer, parts.clock));
  parts.engine_pointers.push_back(parts.engines.back().get());
  return Ok{};
}

Result<LoadedVariants> LoadedVariants::load(const ModelConfig& config, const ModelFlags& common,
                                            const LoadSize& size) {
  auto parts = std::make_unique<Parts>();
  ASSIGN_OR_RETURN(parts->opened, open_variants(config, common));
  std::vector<plan::PlanRequest> requests;
  RETURN_IF_ERROR(plan_all(*parts, size, requests));
  const int32_t threads = common.threads > 0 ? common.threads : kernels::usable_cpus();
  ASSIGN_OR_RETURN(parts->pool, kernels::ThreadPool::create(threads));
  print_to_stderr(slow_cpu_warning(kernels::available_isas()));
  for (size_t i = 0; i < requests.size(); ++i) {
    RETURN_IF_ERROR(load_one(*parts, i, requests[i], size));
  }
  return LoadedVariants(std::move(parts));
}

std::string LoadedVariants::memory_table() const {
  std::string text;
  uint64_t total = 0;
  for (size_t i = 0; i < parts_->plans.size(); ++i) {
    text += fmt::format("{}{}: ", i == 0 ? "" : "\n", parts_->opened.configs[i].name);
    text += parts_->plans[i].table();
    total += parts_->plans[i].total();
  }
  return text + fmt::format("all variants: {}\n", plan::format_bytes(total));
}

std::vector<std::string> LoadedVariants::summaries() const {
  std::vector<std::string> lines;
  for (size_t i = 0; i < parts_->opened.configs.size(); ++i) {
    const route::Variant& facts = parts_->opened.facts[i];
    std::string certified;
    for (size_t family = 0; family < kNumTaskFamilies && !facts.base; ++family) {
      if (!facts.passes(static_cast<TaskFamily>(family))) continue;
      certified += fmt::format("{}{}", certified.empty() ? "" : ", ", kTaskFamilyNames[family]);
    }
    if (certified.empty()) certified = facts.base ? "everything: the base" : "nothing";
    lines.push_back(fmt::format("variant {}: {}, {}, {}, certified for {}", facts.name,
                                parts_->opened.configs[i].path,
                                parts_->opened.sources[i].type_summary(),
                                plan::kv_type_name(parts_->plans[i].kv_type), certified));
  }
  return lines;
}

}  // namespace puna::cli
