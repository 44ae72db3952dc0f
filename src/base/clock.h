// SPDX-License-Identifier: Apache-2.0
// Time as a dependency: the engine reads a Clock, so a simulation can run it in virtual time.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace puna {

// Nanoseconds of a monotonic clock; only differences mean anything.
using TimeNs = int64_t;
inline constexpr TimeNs kNsPerSecond = 1'000'000'000;
inline constexpr TimeNs kNsPerMs = 1'000'000;

inline double to_seconds(TimeNs ns) {
  return static_cast<double>(ns) / static_cast<double>(kNsPerSecond);
}

class Clock {
 public:
  virtual ~Clock() = default;
  virtual TimeNs now_ns() const = 0;
};

class SteadyClock final : public Clock {
 public:
  TimeNs now_ns() const override {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
  }
};

// Moves only when told to. Thread-safe.
class VirtualClock final : public Clock {
 public:
  TimeNs now_ns() const override { return now_ns_.load(std::memory_order_relaxed); }
  void advance(TimeNs by_ns) { now_ns_.fetch_add(by_ns, std::memory_order_relaxed); }

 private:
  std::atomic<TimeNs> now_ns_{0};
};

}  // namespace puna
