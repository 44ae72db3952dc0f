// SPDX-License-Identifier: Apache-2.0
// A queue of work on the GPU, and what happens when the GPU fails. Includes nothing of CUDA and
// little of Puna, for nvcc reads it too.
#pragma once

struct CUstream_st;

namespace puna::kernels::cuda {

using Stream = CUstream_st*;

// Ends the process when a call of the CUDA runtime failed in a step: after that no result can be
// trusted, and a supervisor restarts a process that is gone. `status` is a cudaError_t.
void check_device(int status, const char* doing);
// The same for a GPU that does not answer.
[[noreturn]] void give_up_device(const char* doing, const char* why);
inline constexpr int kDeviceLostExit = 70;

}  // namespace puna::kernels::cuda
