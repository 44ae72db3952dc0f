// SPDX-License-Identifier: Apache-2.0
// How far the packing (or quantising) of a large model is: one line that is redrawn on a terminal,
// a few plain lines in a log.
//
//   LoadProgressPrinter printer(stderr_is_terminal(), [](std::string_view text) { ... });
//   printer.update(done_bytes, total_bytes);
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

#include "base/clock.h"

namespace puna::cli {

class LoadProgressPrinter {
 public:
  using Write = std::function<void(std::string_view text)>;
  // Smaller files load too fast for a line.
  static constexpr uint64_t kSmallestFile = 1 << 30;

  LoadProgressPrinter(bool terminal, Write write, std::string_view work = "packing weights");
  ~LoadProgressPrinter();
  LoadProgressPrinter(const LoadProgressPrinter&) = delete;
  LoadProgressPrinter& operator=(const LoadProgressPrinter&) = delete;

  void update(uint64_t done, uint64_t total);

 private:
  void draw(uint64_t done, uint64_t total);

  const bool terminal_;
  const Write write_;
  const std::string_view work_;
  SteadyClock clock_;
  TimeNs drawn_ns_ = 0;    // when the bar was drawn last
  uint64_t told_ = 0;      // plain lines: quarters that were told
  bool bar_open_ = false;  // the bar's line has no end yet
};

}  // namespace puna::cli
