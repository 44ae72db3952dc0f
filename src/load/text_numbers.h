// SPDX-License-Identifier: Apache-2.0
// Small parts of flags: "a:b:c" into fields, and a whole field into a number.
#pragma once

#include <charconv>
#include <optional>
#include <string_view>
#include <vector>

namespace puna::load {

inline std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> fields;
  for (size_t at = 0;;) {
    const size_t end = text.find(separator, at);
    fields.push_back(text.substr(at, end - at));
    if (end == std::string_view::npos) return fields;
    at = end + 1;
  }
}

// None unless all of `text` is one number.
template <typename T>
std::optional<T> parse_number(std::string_view text) {
  T number{};
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc() || stop != end) return std::nullopt;
  return number;
}

}  // namespace puna::load
