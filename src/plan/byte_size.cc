// SPDX-License-Identifier: Apache-2.0
#include "plan/byte_size.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>

namespace puna::plan {
namespace {
struct Unit {
  std::string_view name;
  double bytes;
};

constexpr std::array<Unit, 10> kUnits = {{
    {"", 1.0},
    {"B", 1.0},
    {"KiB", 1024.0},
    {"MiB", 1048576.0},
    {"GiB", 1073741824.0},
    {"TiB", 1099511627776.0},
    {"KB", 1e3},
    {"MB", 1e6},
    {"GB", 1e9},
    {"TB", 1e12},
}};

Error bad_budget(std::string_view text) {
  return Error(
      ErrorCode::kInvalidArgument,
      "\"{}\" is no size: write a number with KiB, MiB, GiB, KB, MB or GB, or a per cent of "
      "the machine's memory, as in 4GiB or 80%",
      text);
}

}  // namespace

Result<uint64_t> parse_budget(std::string_view text, uint64_t total) {
  double number = 0;
  const char* end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, number, std::chars_format::fixed);
  if (parsed.ec != std::errc() || !std::isfinite(number) || number <= 0) return bad_budget(text);
  std::string_view suffix(parsed.ptr, static_cast<size_t>(end - parsed.ptr));
  while (suffix.starts_with(' ')) suffix.remove_prefix(1);
  if (suffix == "%") {
    if (number > 100) return bad_budget(text);
    return static_cast<uint64_t>(static_cast<double>(total) * number / 100.0);
  }
  for (const Unit& unit : kUnits) {
    if (suffix != unit.name) continue;
    const double bytes = number * unit.bytes;
    if (bytes < 1 || bytes > 1e18) return bad_budget(text);
    return static_cast<uint64_t>(bytes);
  }
  return bad_budget(text);
}

std::string format_bytes(uint64_t bytes) {
  if (bytes < 1024) return fmt::format("{} B", bytes);
  constexpr std::array<std::string_view, 4> kNames = {"KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes) / 1024.0;
  size_t unit = 0;
  while (value >= 1023.95 && unit + 1 < kNames.size()) {
    value /= 1024.0;
    ++unit;
  }
  return fmt::format("{:.1f} {}", value, kNames[unit]);
}

}  // namespace puna::plan
