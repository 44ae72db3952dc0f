// SPDX-License-Identifier: Apache-2.0
// What memory this process may use: the machine's, or its control group's where that allows less.
// Read once at start.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"

namespace puna::plan {

struct SystemMemory {
  uint64_t total = 0;      // bytes of RAM, or the control group's limit if that is smaller
  uint64_t available = 0;  // of it, what can be had now without swapping; page cache counts as free
};

// `root` is in front of /proc and /sys; tests point it at a made-up tree.
Result<SystemMemory> read_system_memory(const std::string& root = "");

// Bytes of the heap that are in use now, pieces mapped on their own included.
uint64_t heap_bytes();

// All of it, file pages included (VmRSS).
uint64_t resident_bytes();

// What the program itself takes that is not in the file of it: heap and written data that are
// resident now, less the tokenizer's, plus what starting adds.
uint64_t runtime_bytes(uint64_t tokenizer_bytes);
// Resident pages of the program's and its libraries' files when the server is busy: clean, shared
// with other processes, and the first that the kernel takes back when memory is short.
inline constexpr uint64_t kProgramBytes = uint64_t{9} << 20;

}  // namespace puna::plan
