// SPDX-License-Identifier: Apache-2.0
#include "plan/system_memory.h"

#include <fmt/format.h>
#include <malloc.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <optional>
#include <string_view>

namespace puna::plan {
namespace {

// The number in a line such as "MemTotal:  24576000 kB" or "inactive_file 4096".
std::optional<uint64_t> first_number(std::string_view line) {
  const size_t start = line.find_first_of("0123456789");
  if (start == std::string_view::npos) return std::nullopt;
  uint64_t value = 0;
  const auto parsed = std::from_chars(line.data() + start, line.data() + line.size(), value);
  if (parsed.ec != std::errc()) return std::nullopt;
  return value;
}

// The number of the line of `path` that begins with `key`; of the first line when `key` is empty.
std::optional<uint64_t> read_number(const std::string& path, std::string_view key) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    if (std::string_view(line).starts_with(key)) {
      return first_number(std::string_view(line).substr(key.size()));
    }
  }
  return std::nullopt;
}

// Names of the same facts in the two generations of control groups.
struct GroupFiles {
  std::string_view mount;
  std::string_view limit;
  std::string_view usage;
  std::string_view reclaimable_prefix;  // page cache that the kernel drops before it kills
};
constexpr GroupFiles kVersion2 = {"/sys/fs/cgroup", "memory.max", "memory.current", ""};
constexpr GroupFiles kVersion1 = {"/sys/fs/cgroup/memory", "memory.limit_in_bytes",
                                  "memory.usage_in_bytes", "total_"};

// Narrows `memory` to the limits of the group `path` and of every group above it.
void apply_groups(const std::string& root, const GroupFiles& files, std::string path,
                  SystemMemory& memory) {
  while (true) {
    const std::string folder = fmt::format("{}{}{}/", root, files.mount, path);
    // "max" (no limit) holds no number; version 1 writes a huge one.
    const auto limit = read_number(folder + std::string(files.limit), "");
    if (limit && *limit < memory.total) {
      memory.total = *limit;
    }
    if (limit) {
      const std::string prefix(files.reclaimable_prefix);
      const uint64_t used = read_number(folder + std::string(files.usage), "").value_or(0);
      const uint64_t cache =
          read_number(folder + "memory.stat", prefix + "inactive_file ").value_or(0) +
          read_number(folder + "memory.stat", prefix + "active_file ").value_or(0);
      const uint64_t held = used > cache ? used - cache : 0;
      memory.available = std::min(memory.available, *limit > held ? *limit - held : 0);
    }
    if (path.empty()) return;
    path.resize(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
  }
}

// Heap of the I/O threads, the HTTP server and the engine (measured: test_memory.py).
constexpr uint64_t kLaterBytes = 768 << 10;

}  // namespace

Result<SystemMemory> read_system_memory(const std::string& root) {
  const std::string meminfo = root + "/proc/meminfo";
  const auto total_kib = read_number(meminfo, "MemTotal:");
  const auto available_kib = read_number(meminfo, "MemAvailable:");
  if (!total_kib || !available_kib) {
    return Error(ErrorCode::kIo, "{}: MemTotal and MemAvailable can't be read", meminfo);
  }
  SystemMemory memory{*total_kib * 1024, *available_kib * 1024};
  std::ifstream groups(root + "/proc/self/cgroup");
  std::string line;
  while (std::getline(groups, line)) {  // "0::/user.slice" (version 2) or "9:memory:/docker/x"
    const size_t last = line.rfind(':');
    if (last == std::string::npos) continue;
    std::string path = line.substr(last + 1);
    if (path == "/") path.clear();
    if (line.starts_with("0::")) apply_groups(root, kVersion2, path, memory);
    if (line.substr(0, last).ends_with(":memory")) apply_groups(root, kVersion1, path, memory);
  }
  return memory;
}

uint64_t resident_bytes() { return read_number("/proc/self/status", "VmRSS:").value_or(0) * 1024; }

uint64_t heap_bytes() {
  const struct mallinfo2 info = ::mallinfo2();
  return info.uordblks + info.hblkhd;
}

uint64_t runtime_bytes(uint64_t tokenizer_bytes) {
  const uint64_t anonymous = read_number("/proc/self/status", "RssAnon:").value_or(0) * 1024;
  return kLaterBytes + (anonymous > tokenizer_bytes ? anonymous - tokenizer_bytes : 0);
}

}  // namespace puna::plan
