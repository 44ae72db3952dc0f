// SPDX-License-Identifier: Apache-2.0
// Looks at the server every half second during the chaos: does it answer /ready and /metrics, how
// much memory does it hold; and pauses its process now and then. On a thread of its own.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "load/target.h"

namespace puna::load {

struct WatchResult {
  size_t answered = 0;
  size_t unanswered = 0;
  std::string first_failure;
  std::vector<int64_t> resident;  // bytes, one a look
  size_t pauses = 0;
};

class ChaosWatch {
 public:
  // `pid` 0: neither pauses nor memory.
  ChaosWatch(const Target& target, pid_t pid, double duration_s);
  ~ChaosWatch();
  ChaosWatch(const ChaosWatch&) = delete;
  ChaosWatch& operator=(const ChaosWatch&) = delete;

  void start();
  WatchResult stop();

 private:
  void watch();
  void look();
  void pause();

  const Target target_;
  const pid_t pid_;
  const double duration_s_;
  std::atomic<bool> stopping_{false};
  WatchResult result_;  // of thread_ while it runs
  std::thread thread_;
};

}  // namespace puna::load
