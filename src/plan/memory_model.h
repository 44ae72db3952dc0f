// SPDX-License-Identifier: Apache-2.0
// Every byte that a server will take, by owner, known before any of it is taken; and from it the
// size of the KV pool. Computed once at start, on the main thread.
//
//   PlanRequest request{.max_num_seqs = 32};
//   ASSIGN_OR_RETURN(MemoryPlan plan, plan_memory(checkpoint, request, system));
//   std::cerr << plan.table();          // what `serve` prints
//   config.num_blocks = plan.num_blocks;
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "engine/cpu_backend.h"
#include "formats/checkpoint.h"
#include "plan/system_memory.h"

namespace puna::plan {

struct PlanRequest {
  std::string model;          // for messages
  int32_t max_model_len = 0;  // 0: the model's context, or as much of it as fits
  int32_t max_num_seqs = 32;
  int32_t max_batch_tokens = 512;
  int32_t threads = 0;  // 0: one per core
  std::string isa;
  kernels::KvType kv_type = kernels::KvType::kBF16;
  kernels::ActivationMode activations = kernels::ActivationMode::kInt8;
  uint64_t budget_bytes = 0;  // --memory-budget; 0: not given
  // What the host side may hold at once.
  int64_t max_queued_requests = 256;
  int64_t max_queued_tokens = 1 << 18;
  int64_t max_connections = 1024;
  uint64_t runtime_bytes = 0;  // measured: heap in use when the plan is made (tokenizer, libraries)
};

struct MemoryPlan {
  // Bytes by owner.
  uint64_t weights_mapped = 0;  // used straight from the file's pages
  uint64_t weights_packed = 0;  // copies in the kernels' layout
  uint64_t kv_pool = 0;
  uint64_t activations = 0;  // of the worst legal step
  uint64_t sampling = 0;
  uint64_t host_buffers = 0;  // queued prompts, output channels, connections
  uint64_t runtime = 0;       // heap in use at start, thread stacks

  int32_t num_blocks = 0;
  int32_t max_model_len = 0;
  int32_t max_num_seqs = 0;
  kernels::KvType kv_type = kernels::KvType::kBF16;
  uint64_t budget = 0;        // what all of it must fit in
  bool budget_given = false;  // by --memory-budget; else the memory available at start

  uint64_t fixed() const;  // all but the KV pool
  uint64_t total() const { return fixed() + kv_pool; }
  // Lines of at most 80 columns.
  std::string table() const;
  // `puna:memory_bytes{owner="..."}` in Prometheus text format.
  std::string metrics() const;
};

// Bytes of a backend under a configuration: cpu_backend_bytes of one checkpoint, or a test's own.
using BackendCost = std::function<engine::CpuBackendBytes(const engine::CpuBackendConfig&)>;

// Errors: kResourceExhausted with the numbers and the one flag to change when it does not fit,
// kInvalidArgument when max_model_len is beyond `max_position`.
Result<MemoryPlan> plan_memory(const BackendCost& cost, int32_t max_position,
                               const PlanRequest& request, const SystemMemory& system);
Result<MemoryPlan> plan_memory(const formats::Checkpoint& checkpoint, const PlanRequest& request,
                               const SystemMemory& system);

// Bytes that one token position takes in the KV pool.
uint64_t kv_bytes_per_token(const BackendCost& cost,
                            kernels::KvType kv_type = kernels::KvType::kBF16);

// The backend configuration that `plan` was made for.
engine::CpuBackendConfig backend_config(const MemoryPlan& plan, const PlanRequest& request);

}  // namespace puna::plan
