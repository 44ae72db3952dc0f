// SPDX-License-Identifier: Apache-2.0
#include "cli/loaded_model.h"

#include <algorithm>

#include "cli/warm_up.h"
#include "engine/cpu_backend.h"
#include "plan/byte_size.h"
#include "plan/system_memory.h"

namespace puna::cli {
namespace {

// Prompts enter in pieces of at most this many tokens, so that running streams keep their pace.
constexpr int32_t kPrefillChunkTokens = 256;
constexpr TimeNs kWarmUpBudget = 150 * kNsPerMs;

Result<plan::MemoryPlan> make_plan(const formats::Checkpoint& checkpoint, const ModelFlags& flags,
                                   plan::PlanRequest& request) {
  ASSIGN_OR_RETURN(const plan::SystemMemory system, plan::read_system_memory());
  request.model = flags.model;
  request.max_model_len = flags.max_model_len;
  request.threads = flags.threads;
  request.isa = flags.isa;
  request.runtime_bytes = plan::resident_anonymous_bytes();
  if (!flags.memory_budget.empty()) {
    auto budget = plan::parse_budget(flags.memory_budget, system.total);
    if (!budget.ok()) return std::move(budget).error().with_context("--memory-budget");
    request.budget_bytes = *budget;
  }
  return plan::plan_memory(checkpoint, request, system);
}

// Distinguishes models in prefix-cache hashes (FNV-1a over what tells two files apart).
uint64_t digest_of(const formats::Checkpoint& checkpoint) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : checkpoint.path() + "/" + std::to_string(checkpoint.weight_bytes())) {
    hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  }
  return hash;
}

}  // namespace

Result<LoadedModel> LoadedModel::load(const ModelFlags& flags, const LoadSize& size) {
  auto parts = std::make_unique<Parts>();
  auto checkpoint = formats::Checkpoint::open(flags.model);
  if (!checkpoint.ok()) return std::move(checkpoint).error().with_context("--model");
  parts->checkpoint.emplace(std::move(checkpoint).value());
  parts->type_summary = parts->checkpoint->type_summary();

  auto tokenizer = model::Tokenizer::load(parts->checkpoint->tokenizer_source());
  if (!tokenizer.ok()) return std::move(tokenizer).error().with_context("--model " + flags.model);
  parts->tokenizer.emplace(std::move(tokenizer).value());
  if (size.needs_chat_template) {
    auto chosen = model::ChatTemplate::choose(flags.chat_template, *parts->tokenizer);
    if (!chosen.ok()) return std::move(chosen).error().with_context("--model " + flags.model);
    parts->chat_template.emplace(std::move(chosen).value());
  }

  plan::PlanRequest request;
  request.max_num_seqs = size.max_num_seqs;
  request.max_batch_tokens = size.max_batch_tokens;
  request.max_queued_requests = size.max_queued_requests;
  request.max_queued_tokens = size.max_queued_tokens;
  request.max_connections = size.max_connections;
  ASSIGN_OR_RETURN(parts->plan, make_plan(*parts->checkpoint, flags, request));
  ASSIGN_OR_RETURN(parts->backend, engine::make_cpu_backend(*parts->checkpoint,
                                                            backend_config(parts->plan, request)));
  parts->warm_up_tokens = warm_up(*parts->backend, parts->clock, kWarmUpBudget);

  engine::EngineConfig config;
  config.max_queued_requests = size.max_queued_requests;
  config.max_queued_tokens = size.max_queued_tokens;
  config.prefill_chunk_tokens = std::min(kPrefillChunkTokens, size.max_batch_tokens);
  config.prefix_cache = size.prefix_cache;
  config.model_digest = digest_of(*parts->checkpoint);
  parts->engine =
      std::make_unique<engine::Engine>(config, *parts->backend, *parts->tokenizer, parts->clock);
  return LoadedModel(std::move(parts));
}

}  // namespace puna::cli
