// SPDX-License-Identifier: Apache-2.0
// A model brought up: file, tokenizer, chat template, memory plan, backend and engine, in the order
// in which they depend on each other. Shared by `serve` and `run`; main thread.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "cli/flags.h"
#include "cli/model_source.h"
#include "engine/backend.h"
#include "engine/cuda_backend.h"
#include "engine/engine.h"
#include "formats/checkpoint.h"
#include "model/chat_template.h"
#include "model/tokenizer.h"
#include "plan/ledger.h"
#include "plan/memory_model.h"

namespace puna::cli {

// Prompts enter in pieces of at most this many tokens, so that running streams keep their pace.
inline constexpr int32_t kPrefillChunkTokens = 256;

// How much of it there is to be.
struct LoadSize {
  bool server = false;           // clients connect
  int32_t max_num_seqs = 1;      // 0: as many as is usual, or as fit
  int32_t max_batch_tokens = 0;  // the same
  int32_t max_queued_requests = 1;
  int64_t max_queued_tokens = 1 << 18;
  bool prefix_cache = true;
  bool chunk_sizing = true;
  bool needs_chat_template = true;
  std::array<engine::ClassPolicy, engine::kNumClasses> classes = engine::EngineConfig{}.classes;
  std::vector<engine::TenantPolicy> tenants = engine::EngineConfig{}.tenants;
  int32_t max_model_len = 0;   // 0: as the flags say
  bool whole_kv_pool = false;  // KV for max_num_seqs of full length if it fits, not a polite share
};

// What `serve` runs with, and what the engine is told of it.
LoadSize load_size(const ServeFlags& flags);
engine::EngineConfig engine_config(const LoadSize& size);

// The lower half, which needs no tokenizer: what runs steps. `bench` takes it alone. The source
// must outlive it.
struct PlannedBackend {
  plan::MemoryPlan plan;  // of the host; with a GPU its KV pool has blocks and no bytes
  std::unique_ptr<engine::Backend> backend;
  std::optional<engine::CudaBackendFacts> gpu;  // what computes, unless the CPU does
};
// A line for stderr when the best of `isas` (kernels::available_isas()) is slow, else nothing.
std::string slow_cpu_warning(std::span<const std::string_view> isas);

// "avx512_bf16, int8 activations": what the flags come to on this CPU, or "cuda".
std::string compute_summary(const ModelFlags& flags);

// `tokenizer_bytes`: what the model's tokenizer took.
Result<PlannedBackend> load_backend(const ModelSource& source, const ModelFlags& flags,
                                    const LoadSize& size, uint64_t tokenizer_bytes = 0);

// What plan_memory() is asked for: flags, and what this process takes already.
Result<plan::PlanRequest> plan_request(const ModelFlags& flags, const LoadSize& size,
                                       uint64_t tokenizer_bytes, const plan::SystemMemory& system);

class LoadedModel {
 public:
  // Loads everything and runs the warm-up steps; the engine is not started yet.
  static Result<LoadedModel> load(const ModelFlags& flags, const LoadSize& size);

  const formats::ModelSpec& spec() const { return parts_->source->spec(); }
  const model::Tokenizer& tokenizer() const { return *parts_->tokenizer; }
  const model::ChatTemplate* chat_template() const {
    return parts_->chat_template ? &*parts_->chat_template : nullptr;
  }
  const plan::MemoryPlan& plan() const { return parts_->planned.plan; }
  // Of the host and of the GPU if one computes.
  const plan::Ledger& ledger() const { return *parts_->ledger; }
  std::string memory_table() const;  // lines for a person
  const std::string& type_summary() const { return parts_->type_summary; }
  engine::Engine& engine() { return *parts_->engine; }
  int32_t warm_up_tokens() const { return parts_->warm_up_tokens; }

 private:
  // On the heap: the parts hold pointers to each other. Destroyed from the last to the first.
  struct Parts {
    SteadyClock clock;
    std::optional<ModelSource> source;
    std::optional<model::Tokenizer> tokenizer;
    std::optional<model::ChatTemplate> chat_template;
    std::string type_summary;
    PlannedBackend planned;
    std::optional<plan::Ledger> ledger;
    std::unique_ptr<engine::Engine> engine;
    int32_t warm_up_tokens = 0;
  };
  explicit LoadedModel(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
  std::unique_ptr<Parts> parts_;
};

}  // namespace puna::cli
