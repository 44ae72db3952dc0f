// SPDX-License-Identifier: Apache-2.0
// Lines from stdin, with Ctrl-C as an event. The terminal itself does the line editing.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "cli/signals.h"

namespace puna::cli {

enum class InputKind { kLine, kEnd, kInterrupt };

class LineReader {
 public:
  explicit LineReader(Signals& signals) : signals_(signals) {}

  // Waits for a line (without its newline), the end of input, or a signal.
  InputKind read_line(std::string& line);

 private:
  Signals& signals_;
  std::string pending_;
};

bool stdin_is_terminal();
bool stdout_is_terminal();
bool stderr_is_terminal();
// At once, so that a bar moves.
void print_to_stderr(std::string_view text);

// All of stdin, at most `max_bytes`.
Result<std::string> read_stdin(size_t max_bytes);

}  // namespace puna::cli
