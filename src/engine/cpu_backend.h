// SPDX-License-Identifier: Apache-2.0
// The CPU backend: a model::Llama, its KV arena, and a pool of pinned threads that run each step,
// sampling included. Owned by whoever made the engine; called by the engine thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "base/result.h"
#include "engine/backend.h"
#include "formats/checkpoint.h"
#include "kernels/cpu/cpu_options.h"
#include "kernels/ops.h"
#include "model/weights.h"

namespace puna::engine {

struct CpuBackendConfig {
  int32_t num_blocks = 0;
  int32_t max_num_seqs = 32;
  int32_t max_batch_tokens = 512;
  int32_t max_model_len = 2048;
  int32_t threads = 0;  // 0: one per core this process may use
  kernels::KvType kv_type = kernels::KvType::kBF16;
  kernels::ActivationMode activations = kernels::ActivationMode::kInt8;
  std::string_view isa = {};  // of kernels::available_isas(); "" picks the best of this CPU
  model::LoadProgress load_progress = {};
  // Instead of threads of its own; null: none. Outlives the backend. Backends that share one must
  // not run steps at the same time (engine/step_turn.h).
  kernels::ThreadPool* pool = nullptr;
};

// Bytes that create() will take with `config`, by owner; plan::memory_model adds them up.
struct CpuBackendBytes {
  uint64_t weights = 0;  // packed copies; weights used straight from the mapped file are not in it
  uint64_t mapped = 0;   // file bytes that stay mapped and hot
  uint64_t loading = 0;  // file bytes that are resident besides `weights` while they are packed
  uint64_t kv = 0;
  uint64_t activations = 0;  // of the worst legal step
  uint64_t sampling = 0;
};
CpuBackendBytes cpu_backend_bytes(const formats::Checkpoint& checkpoint,
                                  const CpuBackendConfig& config);

// `checkpoint` must outlive the backend. Errors: kResourceExhausted with the bytes when memory
// cannot be had, kUnsupported for an ISA that this CPU lacks.
Result<std::unique_ptr<Backend>> make_cpu_backend(const formats::Checkpoint& checkpoint,
                                                  const CpuBackendConfig& config);

}  // namespace puna::engine
