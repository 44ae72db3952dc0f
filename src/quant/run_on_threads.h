// SPDX-License-Identifier: Apache-2.0
// The same work on several threads, the caller's among them; they share by an atomic counter that
// `work` closes over. Returns when all are done.
//
//   std::atomic<int64_t> next{0};
//   run_on_threads(threads, [&] { for (int64_t i = next++; i < rows; i = next++) ...; });
#pragma once

#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

namespace puna::quant {

template <typename Work>
void run_on_threads(int64_t threads, const Work& work) {
  std::vector<std::thread> helpers;
  try {
    for (int64_t i = 1; i < threads; ++i) helpers.emplace_back(work);
  } catch (const std::system_error&) {
    // The system gives no more threads: those that there are do the work.
  }
  work();
  for (std::thread& helper : helpers) helper.join();
}

}  // namespace puna::quant
