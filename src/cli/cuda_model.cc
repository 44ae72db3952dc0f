// SPDX-License-Identifier: Apache-2.0
#include "cli/cuda_model.h"

#include <algorithm>
#include <utility>

#include "base/user_folder.h"
#include "cli/terminal.h"
#include "kv/block_id.h"
#include "plan/byte_size.h"
#include "plan/gpu_model.h"
#include "plan/host_kv.h"
#include "plan/memory_model.h"
#include "plan/system_memory.h"

namespace puna::cli {
namespace {

std::string tuning_folder(const std::string& wanted) {
  if (wanted == "none") return "";
  if (!wanted.empty()) return wanted;
  const std::string cache = user_folder("XDG_CACHE_HOME", ".cache");
  return cache.empty() ? "" : cache + "/puna/cuda";
}

// What `puna plan` says of the GPU's memory that is free. The backend counts its bytes itself and
// takes what is free for the pool; here it gets the sizes that the user left open.
Result<engine::CudaBackendConfig> choose_config(const formats::ModelSpec& spec,
                                                const ModelFlags& flags, const LoadSize& size) {
  engine::CudaBackendConfig config;
  config.device = cuda_ordinal(flags.device).value_or(0);
  config.tuning_folder = tuning_folder(flags.tuning_cache);
  ASSIGN_OR_RETURN(const engine::CudaMemory memory, engine::cuda_memory(config.device));
  plan::PlanRequest request;
  request.model = spec.name.empty() ? flags.model : spec.name;
  request.max_model_len = size.max_model_len > 0 ? size.max_model_len : flags.max_model_len;
  request.max_num_seqs = size.max_num_seqs;
  request.max_batch_tokens = size.max_batch_tokens;
  request.on_device = true;
  request.budget_bytes = memory.free;
  request.runtime_bytes = plan::kGpuRuntimeBytes;
  const auto cost = [&](const engine::CpuBackendConfig& of) { return plan::gpu_bytes(spec, of); };
  ASSIGN_OR_RETURN(const plan::MemoryPlan plan, plan::plan_memory(cost, spec.max_position, request,
                                                                  {memory.total, memory.free}));
  config.max_num_seqs = plan.max_num_seqs;
  config.max_batch_tokens = plan.max_batch_tokens;
  config.max_model_len = plan.max_model_len;
  return config;
}

// Places on the host for blocks of paused requests; only a server has such.
Result<int32_t> choose_host_blocks(const formats::ModelSpec& spec, const ModelFlags& flags,
                                   const LoadSize& size) {
  if (!size.server) return 0;
  ASSIGN_OR_RETURN(const plan::SystemMemory system, plan::read_system_memory());
  uint64_t room = system.available;
  if (!flags.memory_budget.empty()) {
    ASSIGN_OR_RETURN(room, plan::parse_budget(flags.memory_budget, system.total));
  }
  ASSIGN_OR_RETURN(const uint64_t bytes,
                   plan::host_kv_bytes(flags.host_kv_memory, room, system.total));
  const auto cost = [&](const engine::CpuBackendConfig& of) { return plan::gpu_bytes(spec, of); };
  const uint64_t block = plan::kv_bytes_per_token(cost) * kv::kBlockTokens;
  return static_cast<int32_t>(std::min<uint64_t>(bytes / block, INT32_MAX));
}

// What the host holds: nothing of the model, its own buffers, and the pinned ones.
Result<plan::MemoryPlan> host_plan(const formats::ModelSpec& spec, const ModelFlags& flags,
                                   LoadSize size, const engine::CudaBackendConfig& config,
                                   const engine::CudaBackend& made, uint64_t tokenizer_bytes) {
  ASSIGN_OR_RETURN(plan::SystemMemory system, plan::read_system_memory());
  system.available += made.facts.host_kv;  // taken already, and part of the plan
  size.max_num_seqs = config.max_num_seqs;
  size.max_batch_tokens = config.max_batch_tokens;
  size.max_model_len = config.max_model_len;
  ASSIGN_OR_RETURN(plan::PlanRequest request, plan_request(flags, size, tokenizer_bytes, system));
  request.kv_type = kernels::KvType::kBF16;  // for its size, which f16 has too
  request.host_kv_bytes = made.facts.host_kv;
  // As it is resident, it was counted as the runtime's.
  request.runtime_bytes -= std::min(request.runtime_bytes, made.facts.host_kv);
  const auto cost = [&](const engine::CpuBackendConfig& of) {
    engine::CpuBackendBytes bytes;
    bytes.kv = static_cast<uint64_t>(of.num_blocks) * kv::kBlockTokens;  // for the arithmetic
    bytes.activations = made.facts.pinned;
    return bytes;
  };
  ASSIGN_OR_RETURN(plan::MemoryPlan plan,
                   plan::plan_memory(cost, spec.max_position, request, system));
  plan.num_blocks = made.backend->limits().num_blocks;
  plan.num_host_blocks = made.backend->limits().num_host_blocks;
  plan.of(plan::Owner::kKvPool) = 0;
  plan.of(plan::Owner::kKvIndex) =
      static_cast<uint64_t>(plan.num_blocks + plan.num_host_blocks) * plan::kIndexBytesPerBlock;
  return plan;
}

}  // namespace

plan::DeviceMemory device_memory(const engine::CudaBackendFacts& facts) {
  return {.name = facts.device,
          .free_before = facts.free_before,
          .free_after = facts.free_after,
          .owners = {{"weights", "f16", facts.weights},
                     {plan::kDeviceKvPool, "f16 keys and values", facts.kv},
                     {"activations", "of the largest step", facts.activations},
                     {"attention", "partial results of decode rows", facts.attention}}};
}

Result<PlannedBackend> load_cuda_backend(const ModelSource& source, const ModelFlags& flags,
                                         const LoadSize& size, uint64_t tokenizer_bytes) {
  const formats::ModelSpec& spec = source.spec();
  auto config = choose_config(spec, flags, size);
  if (!config.ok()) return std::move(config).error().with_context("--device " + flags.device);
  ASSIGN_OR_RETURN(config->num_host_blocks, choose_host_blocks(spec, flags, size));
  auto made = source.checkpoint() != nullptr
                  ? engine::make_cuda_backend(*source.checkpoint(), *config)
                  : engine::make_random_cuda_backend(spec, *config);
  if (!made.ok()) return std::move(made).error().with_context("--device " + flags.device);
  if (const std::string& problem = made->facts.tuning_problem; !problem.empty()) {
    print_to_stderr(
        fmt::format("puna: warning: --tuning-cache: {}; the next start tunes again\n", problem));
  }
  PlannedBackend planned;
  ASSIGN_OR_RETURN(planned.plan, host_plan(spec, flags, size, *config, *made, tokenizer_bytes));
  planned.backend = std::move(made->backend);
  planned.gpu = std::move(made->facts);
  return planned;
}

}  // namespace puna::cli
