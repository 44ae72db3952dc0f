// SPDX-License-Identifier: Apache-2.0
#include "cli/loaded_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

#include "api/server.h"
#include "base/check.h"
#include "cli/cuda_model.h"
#include "cli/load_progress.h"
#include "cli/terminal.h"
#include "cli/warm_up.h"
#include "engine/cpu_backend.h"
#include "kernels/cpu/isa.h"
#include "plan/byte_size.h"
#include "plan/system_memory.h"

namespace puna::cli {
namespace {

constexpr TimeNs kWarmUpBudget = 150 * kNsPerMs;

}  // namespace

std::string compute_summary(const ModelFlags& flags) {
  if (cuda_ordinal(flags.device)) return flags.device;
  const std::string_view isa =
      flags.isa.empty() ? kernels::available_isas().back() : std::string_view(flags.isa);
  switch (flags.activations) {
    case kernels::ActivationMode::kFloat:
      return fmt::format("{}, float activations", isa);
    case kernels::ActivationMode::kInt8:
      return fmt::format("{}, int8 activations", isa);
    case kernels::ActivationMode::kInt8Wide:
      return fmt::format("{}, wide int8 activations", isa);
  }
  return std::string(isa);
}

std::string slow_cpu_warning(std::span<const std::string_view> isas) {
  if (isas.back() != "scalar") return "";
  return "puna: warning: this CPU has no AVX2 (with FMA and F16C), so scalar code runs, many times "
         "slower\n";
}

LoadSize load_size(const ServeFlags& flags) {
  LoadSize size;
  size.server = true;
  size.max_num_seqs = flags.max_num_seqs;
  size.max_batch_tokens = flags.max_num_batched_tokens;
  size.max_queued_requests = flags.max_queued_requests;
  size.max_queued_tokens = flags.max_queued_tokens;
  size.prefix_cache = !flags.no_prefix_cache;
  size.chunk_sizing = !flags.no_chunk_sizing;
  size.classes = flags.classes;
  size.tenants = api::tenants_of(flags.key_policies);
  return size;
}

engine::EngineConfig engine_config(const LoadSize& size) {
  engine::EngineConfig config;
  config.max_queued_requests = size.max_queued_requests;
  config.max_queued_tokens = size.max_queued_tokens;
  config.prefill_chunk_tokens = kPrefillChunkTokens;
  config.prefix_cache = size.prefix_cache;
  config.chunk_sizing = size.chunk_sizing;
  config.classes = size.classes;
  config.tenants = size.tenants;
  return config;
}

Result<plan::PlanRequest> plan_request(const ModelFlags& flags, const LoadSize& size,
                                       uint64_t tokenizer_bytes, const plan::SystemMemory& system) {
  plan::PlanRequest request;
  request.model = flags.model;
  request.max_model_len = size.max_model_len > 0 ? size.max_model_len : flags.max_model_len;
  request.max_num_seqs = size.max_num_seqs;
  request.max_batch_tokens = size.max_batch_tokens;
  request.server = size.server;
  request.max_queued_requests = size.max_queued_requests;
  request.max_queued_tokens = size.max_queued_tokens;
  request.threads = flags.threads;
  request.isa = flags.isa;
  request.kv_type = flags.kv_type();
  request.activations = flags.activations;
  request.tokenizer_bytes = tokenizer_bytes;
  request.runtime_bytes = plan::runtime_bytes(tokenizer_bytes);
  if (size.whole_kv_pool) request.budget_bytes = system.available;
  if (!flags.memory_budget.empty()) {
    auto budget = plan::parse_budget(flags.memory_budget, system.total);
    if (!budget.ok()) return std::move(budget).error().with_context("--memory-budget");
    request.budget_bytes = *budget;
  }
  return request;
}

Result<PlannedBackend> load_backend(const ModelSource& source, const ModelFlags& flags,
                                    const LoadSize& size, uint64_t tokenizer_bytes) {
  if (cuda_ordinal(flags.device)) return load_cuda_backend(source, flags, size, tokenizer_bytes);
  CHECK(source.checkpoint() != nullptr);  // as parse_command() makes sure
  const formats::Checkpoint& checkpoint = *source.checkpoint();
  PlannedBackend planned;
  ASSIGN_OR_RETURN(const plan::SystemMemory system, plan::read_system_memory());
  ASSIGN_OR_RETURN(const plan::PlanRequest request,
                   plan_request(flags, size, tokenizer_bytes, system));
  ASSIGN_OR_RETURN(planned.plan, plan::plan_memory(checkpoint, request, system));
  engine::CpuBackendConfig config = backend_config(planned.plan, request);
  LoadProgressPrinter printer(stderr_is_terminal(), print_to_stderr);
  if (checkpoint.weight_bytes() > LoadProgressPrinter::kSmallestFile) {
    config.load_progress = [&](uint64_t done, uint64_t total) { printer.update(done, total); };
  }
  print_to_stderr(slow_cpu_warning(kernels::available_isas()));
  ASSIGN_OR_RETURN(planned.backend, engine::make_cpu_backend(checkpoint, config));
  return planned;
}

Result<LoadedModel> LoadedModel::load(const ModelFlags& flags, const LoadSize& size) {
  auto parts = std::make_unique<Parts>();
  ASSIGN_OR_RETURN(parts->source, ModelSource::open(flags));
  parts->type_summary = parts->source->type_summary();
  ASSIGN_OR_RETURN(MeasuredTokenizer tokenizer, parts->source->load_tokenizer(flags));
  parts->tokenizer = std::move(tokenizer.tokenizer);
  if (size.needs_chat_template) {
    // A stand-in tokenizer has Llama 3's special tokens and no template.
    const bool stand_in = !flags.random_weights.empty() && flags.tokenizer.empty();
    const std::string_view name =
        stand_in && flags.chat_template.empty() ? "llama3" : std::string_view(flags.chat_template);
    auto chosen = model::ChatTemplate::choose(name, *parts->tokenizer);
    if (!chosen.ok()) {
      return std::move(chosen).error().with_context(
          flags.random_weights.empty() ? "--model " + flags.model : "--tokenizer");
    }
    parts->chat_template.emplace(std::move(chosen).value());
  }

  ASSIGN_OR_RETURN(parts->planned, load_backend(*parts->source, flags, size, tokenizer.bytes));
  const auto& gpu = parts->planned.gpu;
  parts->ledger.emplace(parts->planned.plan,
                        gpu ? std::optional(device_memory(*gpu)) : std::nullopt);
  parts->source->drop_pages();
  engine::Backend& backend = *parts->planned.backend;
  parts->warm_up_tokens = warm_up(backend, parts->clock, kWarmUpBudget);

  const plan::MemoryPlan& plan = parts->planned.plan;
  engine::EngineConfig config = engine_config(size);
  // A GPU wants as many rows as it can get; the scheduler makes chunks smaller for running streams.
  if (gpu) config.prefill_chunk_tokens = plan.max_batch_tokens;
  config.prefill_chunk_tokens = std::min(config.prefill_chunk_tokens, plan.max_batch_tokens);
  config.max_request_bytes = plan.host.max_request_bytes;
  config.model_digest = parts->source->digest();
  parts->engine =
      std::make_unique<engine::Engine>(config, backend, *parts->tokenizer, parts->clock);
  return LoadedModel(std::move(parts));
}

std::string LoadedModel::memory_table() const {
  const auto& gpu = parts_->planned.gpu;
  return plan().table() + (gpu ? device_memory(*gpu).table() : "");
}

}  // namespace puna::cli
