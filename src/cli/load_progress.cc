// SPDX-License-Identifier: Apache-2.0
#include "cli/load_progress.h"

#include <fmt/format.h>

#include <utility>

#include "plan/byte_size.h"

namespace puna::cli {
namespace {

constexpr TimeNs kLoadRedrawNs = 100 * kNsPerMs;
constexpr uint64_t kLoadBarCells = 30;

}  // namespace

LoadProgressPrinter::LoadProgressPrinter(bool terminal, Write write, std::string_view work)
    : terminal_(terminal), write_(std::move(write)), work_(work) {}

LoadProgressPrinter::~LoadProgressPrinter() {
  if (bar_open_) write_("\n");  // loading failed: the error gets a line of its own
}

void LoadProgressPrinter::update(uint64_t done, uint64_t total) {
  if (total == 0) return;
  if (terminal_) return draw(done, total);
  const uint64_t quarter = done * 4 / total;
  if (quarter <= told_) return;
  told_ = quarter;
  write_(fmt::format("{}: {} % of {}\n", work_, quarter * 25, plan::format_bytes(total)));
}

void LoadProgressPrinter::draw(uint64_t done, uint64_t total) {
  const TimeNs now = clock_.now_ns();
  if (bar_open_ && done < total && now - drawn_ns_ < kLoadRedrawNs) return;
  drawn_ns_ = now;
  bar_open_ = done < total;
  const uint64_t cells = done * kLoadBarCells / total;
  write_(fmt::format("\r{} [{:#<{}}{:.<{}}] {:>3} % of {}{}", work_, "", cells, "",
                     kLoadBarCells - cells, done * 100 / total, plan::format_bytes(total),
                     bar_open_ ? "" : "\n"));
}

}  // namespace puna::cli
