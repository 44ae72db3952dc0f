// SPDX-License-Identifier: Apache-2.0
#include "plan/memory_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <thread>

#include "engine/request.h"
#include "kv/block_id.h"
#include "plan/byte_size.h"

namespace puna::plan {
namespace {

using engine::CpuBackendBytes;
using engine::CpuBackendConfig;

// Without --memory-budget the KV pool holds this many tokens for each of max_num_seqs sequences
// (prompt and answer of a usual chat turn) and at least one sequence of full length ...
constexpr int64_t kDefaultTokensPerSequence = 512;
// ... in at most this share of the available memory, so that a server is a good neighbour by
// default.
constexpr uint64_t kDefaultKvShare = 4;
// The shortest context worth serving when the context is chosen by what fits.
constexpr int32_t kSmallestContext = 256;
// A connection's parser, read buffer and coroutine frames; a queued request's strings and
// parameters.
constexpr uint64_t kBytesPerConnection = 24 << 10;
constexpr uint64_t kBytesPerQueuedRequest = 2 << 10;
constexpr uint64_t kResidentStackBytes = 128 << 10;
constexpr uint64_t kOtherThreads = 8;  // main, engine, I/O, admin, tokenising

uint64_t host_bytes(const PlanRequest& request, int32_t max_model_len) {
  const auto queued = static_cast<uint64_t>(request.max_queued_requests);
  const auto sequences = queued + static_cast<uint64_t>(request.max_num_seqs);
  // Each waiting or running request has a channel sized for all of its answer. Top-logprobs make a
  // channel larger; they are rare and not counted.
  const uint64_t channel = static_cast<uint64_t>(max_model_len) * sizeof(engine::TokenEvent);
  return static_cast<uint64_t>(request.max_queued_tokens) * sizeof(engine::TokenId) +
         sequences * (kBytesPerQueuedRequest + channel) +
         static_cast<uint64_t>(request.max_connections) * kBytesPerConnection;
}

CpuBackendConfig make_config(const PlanRequest& request, int32_t num_blocks,
                             int32_t max_model_len) {
  CpuBackendConfig config;
  config.num_blocks = num_blocks;
  config.max_num_seqs = request.max_num_seqs;
  config.max_batch_tokens = request.max_batch_tokens;
  config.max_model_len = max_model_len;
  config.threads = request.threads;
  config.isa = request.isa;
  config.kv_type = request.kv_type;
  config.activations = request.activations;
  return config;
}

// Everything but the KV pool, for contexts of `max_model_len` tokens.
MemoryPlan fixed_part(const BackendCost& cost, const PlanRequest& request, int32_t max_model_len) {
  const CpuBackendBytes bytes = cost(make_config(request, 1, max_model_len));
  MemoryPlan plan;
  plan.weights_mapped = bytes.mapped;
  plan.weights_packed = bytes.weights;
  plan.activations = bytes.activations;
  plan.sampling = bytes.sampling;
  plan.host_buffers = host_bytes(request, max_model_len);
  const auto threads = static_cast<uint64_t>(
      request.threads > 0 ? request.threads
                          : static_cast<int32_t>(std::thread::hardware_concurrency()));
  plan.runtime = request.runtime_bytes + (threads + kOtherThreads) * kResidentStackBytes;
  plan.max_model_len = max_model_len;
  plan.max_num_seqs = request.max_num_seqs;
  plan.kv_type = request.kv_type;
  return plan;
}

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

std::string budget_text(const MemoryPlan& plan) {
  return plan.budget_given ? fmt::format("--memory-budget is {}", format_bytes(plan.budget))
                           : fmt::format("{} of memory is available", format_bytes(plan.budget));
}

Error does_not_fit(const PlanRequest& request, const MemoryPlan& plan, uint64_t kv_minimum) {
  const uint64_t need = plan.fixed() + kv_minimum;
  const std::string advice =
      plan.budget_given ? fmt::format("raise --memory-budget to at least {}MiB", (need >> 20) + 1)
                        : std::string("free memory or choose a smaller --model");
  return Error(
      ErrorCode::kResourceExhausted,
      "{} needs {} (weights {}, activations {}, sampling {}, host buffers {}, runtime {}, "
      "KV pool at least {}), but {}: {}",
      request.model, format_bytes(need), format_bytes(plan.weights_mapped + plan.weights_packed),
      format_bytes(plan.activations), format_bytes(plan.sampling), format_bytes(plan.host_buffers),
      format_bytes(plan.runtime), format_bytes(kv_minimum), budget_text(plan), advice);
}

// How many tokens the pool should hold when `fit` tokens fit.
int64_t pool_tokens(const PlanRequest& request, const MemoryPlan& plan, int64_t fit,
                    uint64_t token_bytes, const SystemMemory& system) {
  const int64_t most = static_cast<int64_t>(request.max_num_seqs) *
                       kv::blocks_for_tokens(plan.max_model_len) * kv::kBlockTokens;
  if (plan.budget_given) return std::min(fit, most);
  const auto share = static_cast<int64_t>(system.available / kDefaultKvShare / token_bytes);
  const int64_t wanted =
      std::max<int64_t>(request.max_num_seqs * kDefaultTokensPerSequence, plan.max_model_len);
  // A context that the user asked for by name may take more than the share.
  const int64_t least = request.max_model_len > 0 ? plan.max_model_len : kSmallestContext;
  return std::min({std::max(least, std::min(wanted, share)), most, fit});
}

}  // namespace

uint64_t MemoryPlan::fixed() const {
  return weights_mapped + weights_packed + activations + sampling + host_buffers + runtime;
}

uint64_t kv_bytes_per_token(const BackendCost& cost, kernels::KvType kv_type) {
  // The difference leaves out what a pool takes whatever its size.
  constexpr int32_t kBlocks = 64;
  CpuBackendConfig config;
  config.kv_type = kv_type;
  config.num_blocks = kBlocks;
  const uint64_t small = cost(config).kv;
  config.num_blocks = 2 * kBlocks;
  return (cost(config).kv - small) / (kBlocks * kv::kBlockTokens);
}

engine::CpuBackendConfig backend_config(const MemoryPlan& plan, const PlanRequest& request) {
  return make_config(request, plan.num_blocks, plan.max_model_len);
}

Result<MemoryPlan> plan_memory(const BackendCost& cost, int32_t max_position,
                               const PlanRequest& request, const SystemMemory& system) {
  if (request.max_model_len > max_position) {
    return Error(ErrorCode::kInvalidArgument,
                 "--max-model-len {} is beyond the {} positions that {} was trained for",
                 request.max_model_len, max_position, request.model);
  }
  const bool chosen = request.max_model_len > 0;
  MemoryPlan plan = fixed_part(cost, request, chosen ? request.max_model_len : max_position);
  plan.budget_given = request.budget_bytes > 0;
  plan.budget = plan.budget_given ? request.budget_bytes : system.available;

  const uint64_t token_bytes = kv_bytes_per_token(cost, request.kv_type);
  const uint64_t block_bytes = token_bytes * kv::kBlockTokens;
  const int32_t least = std::min(kSmallestContext, plan.max_model_len);
  const uint64_t least_kv = static_cast<uint64_t>(kv::blocks_for_tokens(least)) * block_bytes;
  if (plan.fixed() + least_kv > plan.budget) return does_not_fit(request, plan, least_kv);

  const int64_t fit =
      static_cast<int64_t>((plan.budget - plan.fixed()) / block_bytes) * kv::kBlockTokens;
  if (chosen && fit < request.max_model_len) {
    return Error(ErrorCode::kResourceExhausted,
                 "--max-model-len {} needs {} of KV pool, but {} and the rest takes {}: "
                 "lower --max-model-len to {}",
                 request.max_model_len,
                 format_bytes(static_cast<uint64_t>(request.max_model_len) * token_bytes),
                 budget_text(plan), format_bytes(plan.fixed()), fit);
  }
  const int64_t tokens = pool_tokens(request, plan, fit, token_bytes, system);
  plan.num_blocks = chosen ? std::max(static_cast<int32_t>(tokens / kv::kBlockTokens),
                                      kv::blocks_for_tokens(request.max_model_len))
                           : std::max(static_cast<int32_t>(tokens / kv::kBlockTokens), 1);
  plan.kv_pool = static_cast<uint64_t>(plan.num_blocks) * block_bytes;
  if (!chosen) {
    plan.max_model_len = std::min(max_position, plan.num_blocks * kv::kBlockTokens);
    // A shorter context needs no more than what was counted for the longer one.
    plan.host_buffers = host_bytes(request, plan.max_model_len);
    plan.activations = cost(make_config(request, 1, plan.max_model_len)).activations;
  }
  return plan;
}

Result<MemoryPlan> plan_memory(const formats::Checkpoint& checkpoint, const PlanRequest& request,
                               const SystemMemory& system) {
  return plan_memory(
      [&](const CpuBackendConfig& config) { return engine::cpu_backend_bytes(checkpoint, config); },
      checkpoint.spec().max_position, request, system);
}

std::string MemoryPlan::table() const {
  std::string out;
  const auto row = [&out](std::string_view owner, uint64_t bytes, const std::string& note) {
    fmt::format_to(std::back_inserter(out), "  {:<16} {:>10}  {}\n", owner, format_bytes(bytes),
                   note);
  };
  const int64_t tokens = static_cast<int64_t>(num_blocks) * kv::kBlockTokens;
  fmt::format_to(std::back_inserter(out), "memory plan:\n");
  row("weights, mapped", weights_mapped, "used from the file's pages");
  row("weights, packed", weights_packed, "copies in the kernels' layout");
  row(fmt::format("KV pool, {}", kv_type_name(kv_type)), kv_pool,
      fmt::format("{} tokens in {} blocks, context {}", tokens, num_blocks, max_model_len));
  row("activations", activations, "of the largest step");
  row("sampling", sampling, "");
  row("host buffers", host_buffers, "queue, answers, connections");
  row("runtime", runtime, "heap in use at start, stacks");
  row("total", total(),
      fmt::format("of {} ({})", format_bytes(budget),
                  budget_given ? "--memory-budget" : "available now"));
  return out;
}

std::string MemoryPlan::metrics() const {
  struct Owner {
    std::string_view name;
    uint64_t bytes;
  };
  const std::array<Owner, 7> owners = {{{"weights_mapped", weights_mapped},
                                        {"weights_packed", weights_packed},
                                        {"kv_pool", kv_pool},
                                        {"activations", activations},
                                        {"sampling", sampling},
                                        {"host_buffers", host_buffers},
                                        {"runtime", runtime}}};
  std::string out =
      "# HELP puna:memory_bytes Planned memory by owner.\n# TYPE puna:memory_bytes gauge\n";
  for (const Owner& owner : owners) {
    fmt::format_to(std::back_inserter(out), "puna:memory_bytes{{owner=\"{}\"}} {}\n", owner.name,
                   owner.bytes);
  }
  fmt::format_to(std::back_inserter(out),
                 "# HELP puna:memory_budget_bytes What the plan must fit in.\n"
                 "# TYPE puna:memory_budget_bytes gauge\npuna:memory_budget_bytes {}\n",
                 budget);
  return out;
}

}  // namespace puna::plan
