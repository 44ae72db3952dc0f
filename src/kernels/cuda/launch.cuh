// SPDX-License-Identifier: Apache-2.0
// How kernels are launched: each may start while the one before it runs (programmatic dependent
// launch), so each waits for it before it reads what a kernel wrote, or writes. Weights, block
// tables and what earlier steps stored may be read before.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/stream.h"

namespace puna::kernels::cuda {

// Every thread of every kernel calls both. As each kernel waits before it ends, one that has
// finished implies that all before it have, whoever else was let in early. Kernels that take little
// of a multiprocessor let the next one start at once; those that fill it when they have waited, so
// that no more than one kernel is there beside the one that runs.
__device__ inline void let_next_kernel_start() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  cudaTriggerProgrammaticLaunchCompletion();
#endif
}
__device__ inline void wait_for_kernels_before() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
#endif
}
__device__ inline void wait_for_previous_kernel() {
  let_next_kernel_start();
  wait_for_kernels_before();
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
