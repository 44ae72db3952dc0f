// SPDX-License-Identifier: Apache-2.0
// Bytes that the CUDA backend takes of a GPU: 16-bit weights, KV and activations whatever the file
// holds, as engine/cuda_llama.cc lays them out, to within a per cent (row counts are not padded
// here).
#pragma once

#include "engine/cpu_backend.h"
#include "formats/model_spec.h"

namespace puna::plan {

engine::CpuBackendBytes gpu_bytes(const formats::ModelSpec& spec,
                                  const engine::CpuBackendConfig& config);
// What driver, CUDA graphs, modules and cuBLASLt take: left free by engine/cuda_backend.cc.
inline constexpr uint64_t kGpuRuntimeBytes = uint64_t{1} << 30;

}  // namespace puna::plan
