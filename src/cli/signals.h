// SPDX-License-Identifier: Apache-2.0
// SIGINT and SIGTERM as something to poll. Made before any thread starts: the signals are blocked
// in this thread and all that it starts, so they arrive here only.
#pragma once

#include <optional>

namespace puna::cli {

inline constexpr int kInterruptedExitCode = 130;  // as a shell reports Ctrl-C

class Signals {
 public:
  Signals();
  ~Signals();
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

  int fd() const { return fd_; }
  // The next signal, waiting for it at most `timeout_ms` (-1: for ever).
  std::optional<int> wait(int timeout_ms);

 private:
  int fd_ = -1;
};

}  // namespace puna::cli
