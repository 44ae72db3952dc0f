// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/barrier.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <thread>

namespace puna::kernels {
namespace {

// Waits of this length come from the scheduler (its slices are 1 to 4 ms), not from the work.
constexpr TimeNs kPreempted = kNsPerMs;
constexpr TimeNs kShortestSpin = 1'000;
constexpr int kPausesPerLook = 16;  // at the clock, which takes as long as two or three pauses

void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

// std::atomic::wait would spin and yield on its own account first.
void futex(std::atomic<uint32_t>& word, int operation, uint32_t value) {
  static_assert(sizeof(std::atomic<uint32_t>) == sizeof(uint32_t));
  (void)::syscall(SYS_futex, &word, operation, value, nullptr, nullptr, 0);
}

}  // namespace

void SpinBudget::learn(TimeNs slept) {
  if (slept == 0) return;
  current_ = slept > kPreempted ? std::max(current_ / 2, std::min(kShortestSpin, longest_))
                                : std::min(current_ * 2, longest_);
}

TimeNs Barrier::arrive_and_wait(TimeNs spin, Completion last, void* context) {
  const uint32_t sense = sense_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads_) {
    if (last != nullptr) last(context);
    arrived_.store(0, std::memory_order_relaxed);
    // Sequentially consistent with sleepers_: either we see the sleeper, or it sees the new sense.
    sense_.store(sense + 1, std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_seq_cst) > 0) {
      futex(sense_, FUTEX_WAKE_PRIVATE, INT_MAX);
    }
    return 0;
  }
  if (spun_through(sense, spin)) return 0;
  const TimeNs began = SteadyClock().now_ns();
  sleep_through(sense);
  return SteadyClock().now_ns() - began;
}

bool Barrier::spun_through(uint32_t sense, TimeNs limit) const {
  TimeNs end = 0;
  do {
    for (int i = 0; i < kPausesPerLook; ++i) {
      if (sense_.load(std::memory_order_acquire) != sense) return true;
      pause_cpu();
    }
    const TimeNs now = SteadyClock().now_ns();
    if (end == 0) end = now + limit;
    if (now >= end) return false;
  } while (true);
}

void Barrier::sleep_through(uint32_t sense) {
  sleepers_.fetch_add(1, std::memory_order_seq_cst);
  while (sense_.load(std::memory_order_seq_cst) == sense) futex(sense_, FUTEX_WAIT_PRIVATE, sense);
  sleepers_.fetch_sub(1, std::memory_order_relaxed);
}

}  // namespace puna::kernels
