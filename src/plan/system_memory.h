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

// Heap and stack bytes of this process that are resident now (RssAnon); 0 when the kernel won't
// say.
uint64_t resident_anonymous_bytes();

}  // namespace puna::plan
