// SPDX-License-Identifier: Apache-2.0
#include "plan/memory_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <vector>

#include "kernels/cpu/thread_pool.h"
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
constexpr int32_t kSmallestContext = 128;
// What each sequence should find in the pool before more sequences are allowed for.
constexpr int64_t kWantedTokensPerSequence = 256;
// The host side's limits shrink until they take at most this share of what the weights leave.
constexpr uint64_t kHostShare = 24;
// Sequences and tokens in a step that are tried when the user leaves them open, largest first.
struct StepSize {
  int32_t max_num_seqs;
  int32_t max_batch_tokens;
};
constexpr std::array<StepSize, 3> kGpuStepSizes = {{
    {kGpuNumSeqs, kGpuBatchTokens},
    {128, 2048},
    {64, 1024},
}};
constexpr std::array<StepSize, 6> kStepSizes = {{
    {kDefaultNumSeqs, kDefaultBatchTokens},
    {16, 256},
    {8, 128},
    {4, 64},
    {2, 32},
    {1, 32},
}};
constexpr uint64_t kResidentStackBytes = 40 << 10;
constexpr uint64_t kServerThreads = 7;  // main, engine, two of I/O, admin, two that tokenise

CpuBackendConfig make_config(const PlanRequest& request, const StepSize& size, int32_t num_blocks,
                             int32_t max_model_len) {
  CpuBackendConfig config;
  config.num_blocks = num_blocks;
  config.max_num_seqs = size.max_num_seqs;
  config.max_batch_tokens = size.max_batch_tokens;
  config.max_model_len = max_model_len;
  config.threads = request.threads;
  config.isa = request.isa;
  config.kv_type = request.kv_type;
  config.activations = request.activations;
  return config;
}

uint64_t block_bytes(const BackendCost& cost, const PlanRequest& request) {
  return kv_bytes_per_token(cost, request.kv_type) * kv::kBlockTokens;
}

uint64_t index_bytes_per_block(const PlanRequest& request) {
  return request.on_device ? 0 : kIndexBytesPerBlock;
}

// Everything but the KV pool and its index.
MemoryPlan fixed_part(const BackendCost& cost, const PlanRequest& request, const StepSize& size,
                      int32_t max_model_len, int host_size) {
  const CpuBackendBytes bytes = cost(make_config(request, size, 1, max_model_len));
  MemoryPlan plan;
  plan.max_model_len = max_model_len;
  plan.max_num_seqs = size.max_num_seqs;
  plan.max_batch_tokens = size.max_batch_tokens;
  plan.kv_type = request.kv_type;
  plan.on_device = request.on_device;
  plan.of(Owner::kWeightsMapped) = bytes.mapped;
  plan.of(Owner::kWeightsPacked) = bytes.weights;
  plan.of(Owner::kActivations) = bytes.activations;
  plan.of(Owner::kSampling) = bytes.sampling;
  plan.of(Owner::kRuntime) = request.runtime_bytes;
  if (request.on_device) return plan;
  plan.of(Owner::kHostKv) = request.host_kv_bytes;
  plan.loading = bytes.loading;
  plan.host = host_limits({.server = request.server,
                           .max_queued_requests = request.max_queued_requests,
                           .max_queued_tokens = request.max_queued_tokens,
                           .max_num_seqs = size.max_num_seqs,
                           .max_model_len = max_model_len},
                          host_size);
  plan.of(Owner::kRequests) = request_bytes(plan.host);
  if (request.beside_another) {
    plan.of(Owner::kThreads) = kResidentStackBytes;  // its engine
    plan.host = {.max_request_bytes = plan.host.max_request_bytes};
    return plan;
  }
  plan.program = kProgramBytes;
  plan.of(Owner::kTokenizer) = request.tokenizer_bytes;
  const auto lanes =
      static_cast<uint64_t>(request.threads > 0 ? request.threads : kernels::usable_cpus());
  plan.of(Owner::kThreads) = (lanes + kServerThreads) * kResidentStackBytes;
  plan.of(Owner::kBodies) = body_bytes(plan.host);
  plan.of(Owner::kConnections) = connection_bytes(plan.host);
  return plan;
}

uint64_t host_bytes(const MemoryPlan& plan) {
  return plan.of(Owner::kRequests) + plan.of(Owner::kBodies) + plan.of(Owner::kConnections);
}

void set_pool(MemoryPlan& plan, const BackendCost& cost, const PlanRequest& request,
              int32_t num_blocks) {
  plan.num_blocks = num_blocks;
  plan.of(Owner::kKvPool) = static_cast<uint64_t>(num_blocks) * block_bytes(cost, request);
  plan.of(Owner::kKvIndex) = static_cast<uint64_t>(num_blocks) * index_bytes_per_block(request);
}

// Before the KV pool and the activations are touched.
uint64_t while_loading(const MemoryPlan& plan) {
  return plan.of(Owner::kWeightsPacked) + plan.loading + plan.of(Owner::kRuntime) +
         plan.of(Owner::kTokenizer);
}

std::string budget_text(const MemoryPlan& plan) {
  if (plan.on_device) return fmt::format("the device has {}", format_bytes(plan.budget));
  return plan.budget_given ? fmt::format("--memory-budget is {}", format_bytes(plan.budget))
                           : fmt::format("{} of memory is available", format_bytes(plan.budget));
}

Error does_not_fit(const PlanRequest& request, const MemoryPlan& plan, uint64_t kv_minimum) {
  const uint64_t need = std::max(plan.fixed() + kv_minimum, while_loading(plan));
  const uint64_t host_kv = plan.of(Owner::kHostKv);
  const std::string advice =
      host_kv > 0 && need - host_kv <= plan.budget
          ? fmt::format("lower --host-kv-memory to {}MiB", (plan.budget - need + host_kv) >> 20)
      : plan.on_device    ? std::string("choose a larger --device or a smaller --model")
      : plan.budget_given ? fmt::format("raise --memory-budget to at least {}MiB", (need >> 20) + 1)
                          : std::string("free memory or choose a smaller --model");
  return Error(ErrorCode::kResourceExhausted,
               "{} needs {} (weights {}, activations {}, sampling {}, requests, bodies and "
               "connections {}, runtime {}, KV pool at least {}{}), but {}: {}",
               request.model, format_bytes(need),
               format_bytes(plan.of(Owner::kWeightsMapped) + plan.of(Owner::kWeightsPacked)),
               format_bytes(plan.of(Owner::kActivations)), format_bytes(plan.of(Owner::kSampling)),
               format_bytes(host_bytes(plan)),
               format_bytes(plan.of(Owner::kTokenizer) + plan.of(Owner::kThreads) +
                            plan.of(Owner::kRuntime)),
               format_bytes(kv_minimum),
               host_kv > 0 ? fmt::format(", host KV {}", format_bytes(host_kv)) : "",
               budget_text(plan), advice);
}

// One search for a plan that fits.
class Planner {
 public:
  Planner(const BackendCost& cost, int32_t max_position, const PlanRequest& request,
          const SystemMemory& system, uint64_t budget, uint64_t room)
      : cost_(cost),
        max_position_(max_position),
        request_(request),
        system_(system),
        chosen_(request.max_model_len > 0),
        least_(chosen_ ? request.max_model_len : std::min(kSmallestContext, max_position)),
        block_bytes_(block_bytes(cost, request)),
        budget_(budget),
        room_(room) {}

  Result<MemoryPlan> plan() const;
  uint64_t least_bytes() const;

 private:
  std::vector<StepSize> step_sizes() const;
  MemoryPlan fixed(const StepSize& size, int32_t max_model_len, int host_size) const;
  // Blocks that fit beside everything else.
  int64_t fitting_blocks(const MemoryPlan& plan) const;
  struct Wish {
    bool modest_host = false;  // the host side is small beside what the weights leave
    bool shared_pool = false;  // a pool that all sequences can work with
  };
  std::optional<MemoryPlan> try_size(const StepSize& size, int host_size, const Wish& wish) const;
  int32_t pool_blocks(const MemoryPlan& plan, int64_t fit) const;
  Error refuse() const;

  const BackendCost& cost_;
  const int32_t max_position_;
  const PlanRequest& request_;
  const SystemMemory& system_;
  const bool chosen_;    // the user named a context
  const int32_t least_;  // the shortest context that will do
  const uint64_t block_bytes_;
  const uint64_t budget_;
  const uint64_t room_;  // of it, what the plan may take
};

std::vector<StepSize> Planner::step_sizes() const {
  std::vector<StepSize> tried(kStepSizes.begin(), kStepSizes.end());
  if (request_.on_device) tried.insert(tried.begin(), kGpuStepSizes.begin(), kGpuStepSizes.end());
  std::vector<StepSize> sizes;
  for (StepSize size : tried) {
    if (request_.max_num_seqs > 0) size.max_num_seqs = request_.max_num_seqs;
    if (request_.max_batch_tokens > 0) size.max_batch_tokens = request_.max_batch_tokens;
    // Each running sequence takes a token of every step.
    if (request_.max_batch_tokens > 0 && request_.max_num_seqs == 0) {
      size.max_num_seqs = std::min(size.max_num_seqs, size.max_batch_tokens);
    }
    size.max_batch_tokens = std::max(size.max_batch_tokens, size.max_num_seqs);
    sizes.push_back(size);
    if (request_.max_num_seqs > 0 && request_.max_batch_tokens > 0) break;
  }
  return sizes;
}

MemoryPlan Planner::fixed(const StepSize& size, int32_t max_model_len, int host_size) const {
  MemoryPlan plan = fixed_part(cost_, request_, size, max_model_len, host_size);
  plan.budget = budget_;
  plan.budget_given = request_.budget_bytes > 0;
  return plan;
}

int64_t Planner::fitting_blocks(const MemoryPlan& plan) const {
  if (plan.fixed() > room_) return 0;
  const uint64_t one = block_bytes_ + index_bytes_per_block(request_);
  return static_cast<int64_t>(std::min<uint64_t>((room_ - plan.fixed()) / one, INT32_MAX));
}

std::optional<MemoryPlan> Planner::try_size(const StepSize& size, int host_size,
                                            const Wish& wish) const {
  MemoryPlan plan = fixed(size, least_, host_size);
  if (while_loading(plan) > room_) return std::nullopt;
  int64_t fit = fitting_blocks(plan);
  if (fit < kv::blocks_for_tokens(least_)) return std::nullopt;
  // A longer context takes more of the host: shorten it until both fit.
  for (int32_t context = chosen_ ? least_ : max_position_; !chosen_;) {
    plan = fixed(size, context, host_size);
    fit = fitting_blocks(plan);
    const auto shorter =
        static_cast<int32_t>(std::clamp<int64_t>(fit * kv::kBlockTokens, least_, context));
    if (shorter == context) break;
    context = shorter;
  }
  const uint64_t weights = plan.of(Owner::kWeightsMapped) + plan.of(Owner::kWeightsPacked);
  const uint64_t left = room_ > weights ? room_ - weights : 0;
  if (wish.modest_host && host_bytes(plan) > left / kHostShare) return std::nullopt;
  const int64_t wanted = std::min<int64_t>(kWantedTokensPerSequence, plan.max_model_len);
  if (wish.shared_pool && fit * kv::kBlockTokens < size.max_num_seqs * wanted) return std::nullopt;
  const int32_t blocks = pool_blocks(plan, fit);
  if (!chosen_ && blocks * kv::kBlockTokens < plan.max_model_len) {
    plan = fixed(size, blocks * kv::kBlockTokens, host_size);
  }
  set_pool(plan, cost_, request_, blocks);
  return plan;
}

// How many blocks the pool should have when `fit` of them fit.
int32_t Planner::pool_blocks(const MemoryPlan& plan, int64_t fit) const {
  const int64_t full = kv::blocks_for_tokens(plan.max_model_len);
  const int64_t most = std::min(plan.max_num_seqs * full, fit);
  if (plan.budget_given) return static_cast<int32_t>(most);
  const auto share = static_cast<int64_t>(system_.available / kDefaultKvShare / block_bytes_);
  const int64_t usual =
      std::max<int64_t>(plan.max_num_seqs * kDefaultTokensPerSequence / kv::kBlockTokens, full);
  // A context that the user asked for by name may take more than the share.
  const int64_t least = chosen_ ? full : kv::blocks_for_tokens(least_);
  return static_cast<int32_t>(std::min(std::max(least, std::min(usual, share)), most));
}

uint64_t Planner::least_bytes() const {
  const MemoryPlan smallest = fixed(step_sizes().back(), least_, kHostSizes - 1);
  const auto blocks = static_cast<uint64_t>(kv::blocks_for_tokens(least_));
  return std::max(smallest.fixed() + blocks * (block_bytes_ + index_bytes_per_block(request_)),
                  while_loading(smallest));
}

Error Planner::refuse() const {
  const MemoryPlan smallest = fixed(step_sizes().back(), least_, kHostSizes - 1);
  const int32_t shortest = std::min(kSmallestContext, max_position_);
  const int64_t fit = fitting_blocks(smallest) * kv::kBlockTokens;
  if (chosen_ && fit >= shortest && fit < request_.max_model_len) {
    return Error(ErrorCode::kResourceExhausted,
                 "--max-model-len {} needs {} of KV pool, but {} and the rest takes {}: "
                 "lower --max-model-len to {}",
                 request_.max_model_len,
                 format_bytes(static_cast<uint64_t>(kv::blocks_for_tokens(least_)) * block_bytes_),
                 budget_text(smallest), format_bytes(smallest.fixed()), fit);
  }
  const auto blocks = static_cast<uint64_t>(kv::blocks_for_tokens(std::min(least_, shortest)));
  return does_not_fit(request_, smallest,
                      blocks * (block_bytes_ + index_bytes_per_block(request_)));
}

Result<MemoryPlan> Planner::plan() const {
  if (request_.max_model_len > max_position_) {
    return Error(ErrorCode::kInvalidArgument,
                 "--max-model-len {} is beyond the {} positions that {} was trained for",
                 request_.max_model_len, max_position_, request_.model);
  }
  const std::vector<StepSize> sizes = step_sizes();
  for (const StepSize& size : sizes) {
    for (int host_size = 0; host_size < kHostSizes; ++host_size) {
      const Wish both{.modest_host = true, .shared_pool = true};
      if (auto plan = try_size(size, host_size, both)) return *plan;
    }
  }
  for (const StepSize& size : sizes) {
    if (auto plan = try_size(size, kHostSizes - 1, {.shared_pool = true})) return *plan;
  }
  for (auto size = sizes.rbegin(); size != sizes.rend(); ++size) {
    if (auto plan = try_size(*size, kHostSizes - 1, {})) return *plan;
  }
  return refuse();
}

}  // namespace

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

uint64_t least_bytes(const BackendCost& cost, int32_t max_position, const PlanRequest& request) {
  return Planner(cost, max_position, request, {}, 0, 0).least_bytes();
}

engine::CpuBackendConfig backend_config(const MemoryPlan& plan, const PlanRequest& request) {
  return make_config(request, {plan.max_num_seqs, plan.max_batch_tokens}, plan.num_blocks,
                     plan.max_model_len);
}

MemoryPlan full_plan(const BackendCost& cost, const PlanRequest& request, int32_t max_num_seqs,
                     int32_t max_batch_tokens, int32_t max_model_len, int host_size) {
  const StepSize size{max_num_seqs, std::max(max_num_seqs, max_batch_tokens)};
  MemoryPlan plan = fixed_part(cost, request, size, max_model_len, host_size);
  const int64_t blocks = int64_t{max_num_seqs} * kv::blocks_for_tokens(max_model_len);
  set_pool(plan, cost, request, static_cast<int32_t>(std::min<int64_t>(blocks, INT32_MAX)));
  return plan;
}

Result<MemoryPlan> plan_memory(const BackendCost& cost, int32_t max_position,
                               const PlanRequest& request, const SystemMemory& system) {
  const uint64_t budget = request.budget_bytes > 0 ? request.budget_bytes : system.available;
  // The program's own pages should fit in the budget too. If they don't, the kernel takes them back
  // first when memory is short.
  if (!request.on_device && !request.beside_another && budget > kProgramBytes) {
    auto plan = Planner(cost, max_position, request, system, budget, budget - kProgramBytes).plan();
    if (plan.ok()) return plan;
  }
  return Planner(cost, max_position, request, system, budget, budget).plan();
}

Result<MemoryPlan> plan_memory(const formats::Checkpoint& checkpoint, const PlanRequest& request,
                               const SystemMemory& system) {
  return plan_memory(
      [&](const CpuBackendConfig& config) { return engine::cpu_backend_bytes(checkpoint, config); },
      checkpoint.spec().max_position, request, system);
}

}  // namespace puna::plan
