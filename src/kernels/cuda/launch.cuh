// SPDX-License-Identifier: Apache-2.0
// How kernels are launched: each may start while the one before it drains (programmatic dependent
// launch), so each waits for it before it reads or writes memory.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/stream.h"

namespace puna::kernels::cuda {

// The first statement of every kernel here. All waiting at the start, a kernel that has finished
// implies that all before it have.
__device__ inline void wait_for_previous_kernel() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
#endif
}

template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
            Stream stream, Arguments... arguments) {
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  check_device(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...),
               "a kernel's launch");
}

}  // namespace puna::kernels::cuda
