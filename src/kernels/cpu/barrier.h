// SPDX-License-Identifier: Apache-2.0
// Where the lanes of a pool meet. Steps pass a hundred barriers of a few microseconds each, so a
// lane that waits spins first; it sleeps in the kernel when the wait gets long, so that a lane that
// lost its CPU costs the others no more than that.
//
//   Barrier barrier(2);
//   SpinBudget spin(Barrier::kLongestSpin);          // one per thread
//   spin.learn(barrier.arrive_and_wait(spin.current(), nullptr, nullptr));
#pragma once

#include <atomic>
#include <cstdint>

#include "base/clock.h"

namespace puna::kernels {

// How long one thread spins before it sleeps: less when its waits turn out to last as long as the
// scheduler leaves a thread without a CPU, for then someone may need the CPU that it spins on.
class SpinBudget {
 public:
  explicit SpinBudget(TimeNs longest) : longest_(longest), current_(longest) {}
  TimeNs current() const { return current_; }
  void learn(TimeNs slept);

 private:
  TimeNs longest_;
  TimeNs current_;
};

class Barrier {
 public:
  using Completion = void (*)(void* context);
  // Longer than lanes differ inside a step when all of them run.
  static constexpr TimeNs kLongestSpin = 60'000;
  // For more threads than CPUs: what we wait for may need this very CPU.
  static constexpr TimeNs kCrowdedSpin = 1'000;

  explicit Barrier(int32_t threads) : threads_(threads) {}
  // Spins for `spin` at most, then sleeps; returns how long it slept. The last to arrive runs
  // last(context), if there is one, before anybody goes on.
  TimeNs arrive_and_wait(TimeNs spin, Completion last, void* context);

 private:
  bool spun_through(uint32_t sense, TimeNs limit) const;
  void sleep_through(uint32_t sense);

  const int32_t threads_;
  // On lines of their own, and not each other's adjacent line either, which CPUs fetch along.
  alignas(128) std::atomic<int32_t> arrived_{0};
  alignas(128) std::atomic<uint32_t> sense_{0};  // how often all have arrived
  alignas(128) std::atomic<int32_t> sleepers_{0};
};

}  // namespace puna::kernels
