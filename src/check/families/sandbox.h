// SPDX-License-Identifier: Apache-2.0
// Runs Python that nobody has read. One python3 process per program, which may compute and read
// files, and nothing else: a seccomp list of allowed system calls (no process, no socket, no file
// opened for writing, no signal), no capabilities, no network namespace of ours where the kernel
// allows that too, limits on time, memory, files and output, and an end with the thread that asked.
//
//   const SandboxOutcome outcome = run_python("import os\nos.write(3, b'42')", {});
//
// Linux on x86-64 and aarch64. Elsewhere, without python3, or where the kernel has no seccomp,
// sandbox_works() says so and nothing is run.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace puna::check {

struct SandboxLimits {
  uint64_t cpu_s = 4;
  int64_t wall_ms = 8000;
  uint64_t memory_bytes = uint64_t{512} << 20U;  // of addresses
  uint64_t result_bytes = 64 << 10;
};

struct SandboxOutcome {
  bool ended_well = false;  // exit code 0 within all limits
  std::string result;       // what the program wrote to descriptor 3
  std::string why;          // when it did not end well
};

// Errors start with "not certified". Tries the sandbox once per process: what it must forbid is
// tried there and has to fail.
Result<> sandbox_works();

// The program's standard input is empty, its output is thrown away. Any thread; blocks.
SandboxOutcome run_python(std::string_view program, const SandboxLimits& limits);

// 128 random bits in hex, for a harness that must tell its own words from the program's.
std::string sandbox_nonce();

}  // namespace puna::check
