// SPDX-License-Identifier: Apache-2.0
#include "cli/terminal.h"

#include <fmt/core.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <utility>

namespace puna::cli {

InputKind LineReader::read_line(std::string& line) {
  while (true) {
    const size_t newline = pending_.find('\n');
    if (newline != std::string::npos) {
      line = pending_.substr(0, newline);
      pending_.erase(0, newline + 1);
      return InputKind::kLine;
    }
    std::array<pollfd, 2> waiting = {{{STDIN_FILENO, POLLIN, 0}, {signals_.fd(), POLLIN, 0}}};
    poll(waiting.data(), waiting.size(), -1);
    if (waiting[1].revents != 0 && signals_.wait(0)) {
      pending_.clear();
      return InputKind::kInterrupt;
    }
    if (waiting[0].revents == 0) continue;
    std::array<char, 4096> buffer{};
    const ssize_t got = read(STDIN_FILENO, buffer.data(), buffer.size());
    if (got <= 0) {
      line = std::exchange(pending_, {});
      return line.empty() ? InputKind::kEnd : InputKind::kLine;
    }
    pending_.append(buffer.data(), static_cast<size_t>(got));
  }
}

bool stdin_is_terminal() { return isatty(STDIN_FILENO) == 1; }
bool stdout_is_terminal() { return isatty(STDOUT_FILENO) == 1; }
bool stderr_is_terminal() { return isatty(STDERR_FILENO) == 1; }

void print_to_stderr(std::string_view text) {
  fmt::print(stderr, "{}", text);
  std::fflush(stderr);
}

Result<std::string> read_stdin(size_t max_bytes) {
  std::string text;
  std::array<char, 65536> buffer{};
  while (true) {
    const ssize_t got = read(STDIN_FILENO, buffer.data(), buffer.size());
    if (got < 0) return Error(ErrorCode::kIo, "stdin can't be read");
    if (got == 0) return text;
    text.append(buffer.data(), static_cast<size_t>(got));
    if (text.size() > max_bytes) {
      return Error(ErrorCode::kInvalidArgument, "the prompt on stdin is longer than {} bytes",
                   max_bytes);
    }
  }
}

}  // namespace puna::cli
