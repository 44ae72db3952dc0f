// SPDX-License-Identifier: Apache-2.0
// The GPU's half of loading a model: the backend, and the bytes that it takes by owner, as the
// memory plan of the host says its own. Main thread.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "cli/flags.h"
#include "cli/loaded_model.h"
#include "cli/model_source.h"
#include "engine/cuda_backend.h"
#include "plan/device_memory.h"

namespace puna::cli {

plan::DeviceMemory device_memory(const engine::CudaBackendFacts& facts);

// Errors: kUnavailable in a program built without CUDA, without a driver or that GPU;
// kResourceExhausted with the bytes. The GPU's plan chooses what is left open; the plan that comes
// back counts the host's memory, for the KV pool is the GPU's.
Result<PlannedBackend> load_cuda_backend(const ModelSource& source, const ModelFlags& flags,
                                         const LoadSize& size, uint64_t tokenizer_bytes = 0);

}  // namespace puna::cli
