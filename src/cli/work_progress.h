// SPDX-License-Identifier: Apache-2.0
// How far a long command is, on stderr: one line that is redrawn on a terminal, in a log a line
// when another part begins.
//
//   WorkProgress progress(stderr);
//   progress.update(3, 12, "chunks");
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

#include "base/clock.h"

namespace puna::cli {

class WorkProgress {
 public:
  explicit WorkProgress(std::FILE* out);
  ~WorkProgress() { finish(); }
  WorkProgress(const WorkProgress&) = delete;
  WorkProgress& operator=(const WorkProgress&) = delete;

  void update(int64_t done, int64_t total, std::string_view doing);
  // Clears the line. Nothing is drawn after it until the next update.
  void finish();

 private:
  std::FILE* out_;
  bool terminal_;
  SteadyClock clock_;
  TimeNs drawn_ns_ = 0;
  std::string doing_;
  bool open_ = false;
};

}  // namespace puna::cli
