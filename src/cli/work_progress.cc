// SPDX-License-Identifier: Apache-2.0
#include "cli/work_progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

namespace puna::cli {
namespace {

constexpr TimeNs kRedrawNs = 100 * kNsPerMs;
constexpr int64_t kBarCells = 30;

}  // namespace

WorkProgress::WorkProgress(std::FILE* out) : out_(out), terminal_(isatty(fileno(out)) == 1) {}

void WorkProgress::update(int64_t done, int64_t total, std::string_view doing) {
  const bool other = doing != doing_;
  doing_ = doing;
  if (!terminal_) {
    if (other) fmt::print(out_, "{} ({} of {} done)\n", doing, done, total);
    return;
  }
  const TimeNs now = clock_.now_ns();
  if (open_ && !other && done < total && now - drawn_ns_ < kRedrawNs) return;
  drawn_ns_ = now;
  open_ = true;
  const int64_t cells = total > 0 ? std::clamp<int64_t>(done * kBarCells / total, 0, kBarCells) : 0;
  fmt::print(out_, "\r\033[K[{:#<{}}{:.<{}}] {} of {} {}", "", cells, "", kBarCells - cells, done,
             total, doing);
  std::fflush(out_);
}

void WorkProgress::finish() {
  if (!open_) return;
  fmt::print(out_, "\r\033[K");
  std::fflush(out_);
  open_ = false;
}

}  // namespace puna::cli
