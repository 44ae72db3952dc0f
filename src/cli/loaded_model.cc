// SPDX-License-Identifier: Apache-2.0
#include "cli/loaded_model.h"

#include <fmt/format.h>
#include <malloc.h>

#include <algorithm>
#include <cstdio>

#include "api/server.h"
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

// Distinguishes models in prefix-cache hashes (FNV-1a over what tells two files apart).
uint64_t digest_of(const formats::Checkpoint& checkpoint) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : checkpoint.path() + "/" + std::to_string(checkpoint.weight_bytes())) {
    hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  }
  return hash;
}

void print_to_stderr(std::string_view text) {
  fmt::print(stderr, "{}", text);
  std::fflush(stderr);
}

}  // namespace

std::string compute_summary(const ModelFlags& flags) {
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

Result<MeasuredTokenizer> load_tokenizer(formats::Checkpoint& checkpoint) {
  const uint64_t before = plan::heap_bytes();
  auto tokenizer = model::Tokenizer::load(checkpoint.tokenizer_source());
  if (!tokenizer.ok()) {
    return std::move(tokenizer).error().with_context("--model " + checkpoint.path());
  }
  const uint64_t after = plan::heap_bytes();
  checkpoint.forget_tokenizer();
  ::malloc_trim(0);  // what was needed only to build it
  return MeasuredTokenizer{.tokenizer = std::move(tokenizer).value(),
                           .bytes = after > before ? after - before : 0};
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

Result<PlannedBackend> load_backend(const formats::Checkpoint& checkpoint, const ModelFlags& flags,
                                    const LoadSize& size, uint64_t tokenizer_bytes) {
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
  auto checkpoint = formats::Checkpoint::open(flags.model);
  if (!checkpoint.ok()) return std::move(checkpoint).error().with_context("--model");
  parts->checkpoint.emplace(std::move(checkpoint).value());
  parts->type_summary = parts->checkpoint->type_summary();

  ASSIGN_OR_RETURN(MeasuredTokenizer tokenizer, load_tokenizer(*parts->checkpoint));
  parts->tokenizer = std::move(tokenizer.tokenizer);
  if (size.needs_chat_template) {
    auto chosen = model::ChatTemplate::choose(flags.chat_template, *parts->tokenizer);
    if (!chosen.ok()) return std::move(chosen).error().with_context("--model " + flags.model);
    parts->chat_template.emplace(std::move(chosen).value());
  }

  ASSIGN_OR_RETURN(PlannedBackend planned,
                   load_backend(*parts->checkpoint, flags, size, tokenizer.bytes));
  parts->plan = planned.plan;
  parts->ledger.emplace(planned.plan);
  parts->backend = std::move(planned.backend);
  parts->checkpoint->drop_all_pages();  // what reading the file left; what steps use comes back
  parts->warm_up_tokens = warm_up(*parts->backend, parts->clock, kWarmUpBudget);

  engine::EngineConfig config = engine_config(size);
  config.prefill_chunk_tokens =
      std::min(config.prefill_chunk_tokens, parts->plan.max_batch_tokens);
  config.max_request_bytes = parts->plan.host.max_request_bytes;
  config.model_digest = digest_of(*parts->checkpoint);
  parts->engine =
      std::make_unique<engine::Engine>(config, *parts->backend, *parts->tokenizer, parts->clock);
  return LoadedModel(std::move(parts));
}

}  // namespace puna::cli
