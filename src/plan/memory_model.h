// SPDX-License-Identifier: Apache-2.0
// Every byte that a server will take, known before any of it is taken; and from it the size of the
// KV pool, and of whatever the user left open: context, sequences, tokens in a step, host limits.
// Computed once at start, on the main thread.
//
//   PlanRequest request{.max_num_seqs = 32};
//   ASSIGN_OR_RETURN(MemoryPlan plan, plan_memory(checkpoint, request, system));
//   std::cerr << plan.table();          // what `serve` prints
//   make_cpu_backend(checkpoint, backend_config(plan, request));
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "engine/cpu_backend.h"
#include "formats/checkpoint.h"
#include "plan/memory_plan.h"
#include "plan/system_memory.h"

namespace puna::plan {

// What steps hold when the user leaves it open and memory is no matter.
inline constexpr int32_t kDefaultNumSeqs = 32;
inline constexpr int32_t kDefaultBatchTokens = 512;
// The same of a GPU, which wants many rows.
inline constexpr int32_t kGpuNumSeqs = 256;
inline constexpr int32_t kGpuBatchTokens = 2048;

// A block in the pool's and the prefix cache's tables on the host: 16 token ids, hash, links,
// counts (measured by plan_test).
inline constexpr uint64_t kIndexBytesPerBlock = 160;

struct PlanRequest {
  std::string model;             // for messages
  int32_t max_model_len = 0;     // 0: the model's context, or as much of it as fits
  int32_t max_num_seqs = 0;      // 0: kDefaultNumSeqs or kGpuNumSeqs, or what fits
  int32_t max_batch_tokens = 0;  // 0: kDefaultBatchTokens or kGpuBatchTokens, or what fits
  int32_t threads = 0;           // 0: one per core
  std::string isa;
  kernels::KvType kv_type = kernels::KvType::kBF16;
  kernels::ActivationMode activations = kernels::ActivationMode::kInt8;
  uint64_t budget_bytes = 0;  // --memory-budget; 0: not given
  // The device's own memory is planned, and all of it may be used; `runtime_bytes` is what its
  // driver takes.
  bool on_device = false;
  // Beside another plan of this process, which has its connections, tokenizer, threads and runtime.
  bool beside_another = false;
  // What the host side may hold at once.
  bool server = true;
  int64_t max_queued_requests = 256;
  int64_t max_queued_tokens = 1 << 18;
  // Measured when the plan is made.
  uint64_t tokenizer_bytes = 0;
  uint64_t runtime_bytes = 0;
  uint64_t host_kv_bytes = 0;  // for a GPU's paused requests (host_kv.h)
};

// Bytes of a backend under a configuration: cpu_backend_bytes of one checkpoint, or a test's own.
using BackendCost = std::function<engine::CpuBackendBytes(const engine::CpuBackendConfig&)>;

// Errors: kResourceExhausted with the numbers and the one flag to change when it does not fit,
// kInvalidArgument when max_model_len is beyond `max_position`.
Result<MemoryPlan> plan_memory(const BackendCost& cost, int32_t max_position,
                               const PlanRequest& request, const SystemMemory& system);
Result<MemoryPlan> plan_memory(const formats::Checkpoint& checkpoint, const PlanRequest& request,
                               const SystemMemory& system);

// What the smallest plan that plan_memory() could make takes, at its peak while loading too.
uint64_t least_bytes(const BackendCost& cost, int32_t max_position, const PlanRequest& request);

// Bytes that one token position takes in the KV pool.
uint64_t kv_bytes_per_token(const BackendCost& cost,
                            kernels::KvType kv_type = kernels::KvType::kBF16);

// The plan of exactly this many sequences, tokens in a step and positions, with a pool in which all
// sequences have their full length, and host limits of `host_size`; whether or not it fits.
MemoryPlan full_plan(const BackendCost& cost, const PlanRequest& request, int32_t max_num_seqs,
                     int32_t max_batch_tokens, int32_t max_model_len, int host_size);

// The backend configuration that `plan` was made for.
engine::CpuBackendConfig backend_config(const MemoryPlan& plan, const PlanRequest& request);

}  // namespace puna::plan
