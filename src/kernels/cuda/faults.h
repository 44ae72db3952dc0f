// SPDX-License-Identifier: Apache-2.0
// What a GPU that fails does, on purpose: for the tests of engine/cuda_fault.h.
#pragma once

#include <cstdint>

#include "kernels/cuda/stream.h"

namespace puna::kernels::cuda {

// A launch that the driver refuses at once: more threads than a block may have. A cudaError_t.
int launch_refused(Stream stream);
// The same of a copy: to nowhere.
int copy_refused(Stream stream);
// A kernel that dies. The process loses its context, as when a GPU falls off the bus: every later
// call fails.
void launch_trap(Stream stream);
// A kernel that computes nothing for so long.
void launch_stall(int64_t nanoseconds, Stream stream);

}  // namespace puna::kernels::cuda
