// SPDX-License-Identifier: Apache-2.0
// How fast the waiting queue empties, measured over recent steps during which somebody waited. The
// engine thread notes steps; submitting threads turn the rate into a Retry-After.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>

#include "base/clock.h"

namespace puna::engine {

class DrainRate {
 public:
  // Engine thread: a step of this length took so many prompt tokens and requests off the queue.
  void note_step(TimeNs duration_ns, int64_t tokens, int64_t requests) {
    const double seconds = static_cast<double>(duration_ns) / static_cast<double>(kNsPerSecond);
    const double keep = std::exp(-seconds / kMemorySeconds);
    seconds_ = seconds_ * keep + seconds;
    tokens_ = tokens_ * keep + static_cast<double>(tokens);
    requests_ = requests_ * keep + static_cast<double>(requests);
    if (seconds_ <= 0) return;
    measured_.store(seconds_ >= kLeastSeconds, std::memory_order_relaxed);
    tokens_per_s_.store(tokens_ / seconds_, std::memory_order_relaxed);
    requests_per_s_.store(requests_ / seconds_, std::memory_order_relaxed);
  }

  double tokens_per_s() const { return tokens_per_s_.load(std::memory_order_relaxed); }
  double requests_per_s() const { return requests_per_s_.load(std::memory_order_relaxed); }
  // The first steps of a burst start few requests each: too little to refuse others for.
  bool measured() const { return measured_.load(std::memory_order_relaxed); }

  // Any thread: when the queue will have lost so much. Before anything was measured: one second.
  double seconds_until(int64_t tokens, int64_t requests) const {
    if (tokens_per_s() <= 0) return 1.0;
    const double wait = std::max(static_cast<double>(tokens) / tokens_per_s(),
                                 static_cast<double>(requests) / requests_per_s());
    return std::clamp(wait, kShortestSeconds, kLongestSeconds);
  }

 private:
  static constexpr double kMemorySeconds = 10;
  static constexpr double kLeastSeconds = 1;
  static constexpr double kShortestSeconds = 0.01;
  static constexpr double kLongestSeconds = 60;  // clients give up on waits over two minutes

  double seconds_ = 0;  // all three decay together
  double tokens_ = 0;
  double requests_ = 0;
  std::atomic<double> tokens_per_s_{0};
  std::atomic<double> requests_per_s_{0};
  std::atomic<bool> measured_{false};
};

}  // namespace puna::engine
