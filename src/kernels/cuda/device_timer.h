// SPDX-License-Identifier: Apache-2.0
// How long the device takes for work that is repeated on a stream: what products are tuned by.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>

#include "kernels/cuda/stream.h"

namespace puna::kernels::cuda {

// Of one call of `enqueue(turn)`: the best round of a few.
template <typename Enqueue>
float microseconds_of(Stream stream, Enqueue enqueue) {
  constexpr size_t kRuns = 6;
  constexpr int kRounds = 3;
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
  check_device(cudaEventCreate(&begin), "an event");
  check_device(cudaEventCreate(&end), "an event");
  float best = 0.0F;
  for (int round = 0; round < kRounds; ++round) {
    check_device(cudaEventRecord(begin, stream), "an event");
    for (size_t turn = 0; turn < kRuns; ++turn) enqueue(turn);
    check_device(cudaEventRecord(end, stream), "an event");
    check_device(cudaEventSynchronize(end), "timing a product");
    float milliseconds = 0.0F;
    check_device(cudaEventElapsedTime(&milliseconds, begin, end), "an event");
    if (round == 0 || milliseconds < best) best = milliseconds;
  }
  (void)cudaEventDestroy(begin);
  (void)cudaEventDestroy(end);
  return best * 1000.0F / kRuns;
}

}  // namespace puna::kernels::cuda
