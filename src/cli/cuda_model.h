// SPDX-License-Identifier: Apache-2.0
// The GPU's half of loading a model: the backend, and the bytes that it takes by owner, as the
// memory plan of the host says its own. Main thread.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "cli/flags.h"
#include "cli/loaded_model.h"
#include "cli/model_source.h"
#include "engine/cuda_backend.h"

namespace puna::cli {

// Lines for the memory plan's table, of at most 80 columns.
std::string device_memory_table(const engine::CudaBackendFacts& facts);
// `puna:device_memory_bytes{owner="..."}` in Prometheus text format.
std::string device_memory_metrics(const engine::CudaBackendFacts& facts);

// Errors: kUnavailable in a program built without CUDA, without a driver or that GPU;
// kResourceExhausted with the bytes. The plan counts the host's memory; its KV pool is the GPU's.
Result<PlannedBackend> load_cuda_backend(const ModelSource& source, const ModelFlags& flags,
                                         const LoadSize& size);

}  // namespace puna::cli
