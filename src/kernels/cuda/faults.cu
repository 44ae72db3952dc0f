// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/faults.h"

#include "kernels/cuda/launch.cuh"

namespace puna::kernels::cuda {
namespace {

constexpr unsigned kTooManyThreads = 4096;
constexpr unsigned kSleepNs = 1000;

__global__ void trap_kernel() { __trap(); }

__global__ void stall_kernel(int64_t nanoseconds) {
  const auto now = [] {
    int64_t value;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(value));
    return value;
  };
  const int64_t end = now() + nanoseconds;
  while (now() < end) __nanosleep(kSleepNs);
}

}  // namespace

int launch_refused(Stream stream) {
  trap_kernel<<<1, kTooManyThreads, 0, stream>>>();
  return cudaGetLastError();
}

int copy_refused(Stream stream) {
  return cudaMemcpyAsync(nullptr, nullptr, 1, cudaMemcpyDeviceToHost, stream);
}

void launch_trap(Stream stream) { launch(trap_kernel, 1, 1, 0, stream); }

void launch_stall(int64_t nanoseconds, Stream stream) {
  launch(stall_kernel, 1, 1, 0, stream, nanoseconds);
}

}  // namespace puna::kernels::cuda
