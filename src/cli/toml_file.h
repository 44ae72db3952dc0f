// SPDX-License-Identifier: Apache-2.0
// A TOML file and its tables, read so that every error is one line that names flag, file, line and
// key. Only the files that read TOML include this: toml++ is large.
#pragma once

#include <algorithm>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#define TOML_EXCEPTIONS 0
#define TOML_ENABLE_FORMATTERS 0
#include <toml++/toml.h>

#include "base/result.h"

namespace puna::cli {

inline constexpr uintmax_t kMaxTomlBytes = 1 << 20;

inline uint32_t line_of(const toml::node& node) {
  return static_cast<uint32_t>(node.source().begin.line);
}

inline Result<toml::table> open_toml(std::string_view flag, const std::string& path) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored)) {
    return Error(ErrorCode::kNotFound, "{} {}: no such file", flag, path);
  }
  if (std::filesystem::file_size(path, ignored) > kMaxTomlBytes) {
    return Error(ErrorCode::kInvalidArgument, "{} {}: larger than {} bytes", flag, path,
                 kMaxTomlBytes);
  }
  toml::parse_result parsed = toml::parse_file(path);
  if (!parsed) {
    return Error(ErrorCode::kCorrupt, "{} {}:{}: {}", flag, path,
                 parsed.error().source().begin.line,
                 std::string_view(parsed.error().description()));
  }
  return std::move(parsed).table();
}

// Reads the values of one table. A value that is not there leaves its target as it is.
class TomlTable {
 public:
  // `where`: "--config puna.toml"; `name`: "class.batch" or "key".
  TomlTable(std::string where, std::string name, const toml::table& table)
      : where_(std::move(where)), name_(std::move(name)), table_(table) {}

  Error error_at(const toml::node& node, std::string_view key, std::string_view what) const {
    return Error(ErrorCode::kInvalidArgument, "{}:{}: {}.{} {}", where_, line_of(node), name_, key,
                 what);
  }
  Error error(std::string_view what) const {
    return Error(ErrorCode::kInvalidArgument, "{}:{}: {} {}", where_, line_of(table_), name_, what);
  }

  // "--config puna.toml:7: class.batch", for messages that come later.
  std::string place() const { return fmt::format("{}:{}: {}", where_, line_of(table_), name_); }

  // An error for a key that is none of `known`.
  Result<> check_known(std::span<const std::string_view> known) const {
    for (const auto& [key, node] : table_) {
      if (std::find(known.begin(), known.end(), key.str()) == known.end()) {
        return error_at(node, key.str(), "is no setting");
      }
    }
    return Ok{};
  }

  Result<> text(std::string_view key, std::string& target) const {
    const toml::node* node = table_.get(key);
    if (node == nullptr) return Ok{};
    const auto* value = node->as_string();
    if (value == nullptr || value->get().empty()) return error_at(*node, key, "must be a text");
    target = value->get();
    return Ok{};
  }

  template <typename T>
  Result<> number(std::string_view key, double low, double high, T& target) const {
    const toml::node* node = table_.get(key);
    if (node == nullptr) return Ok{};
    const bool fits = std::is_floating_point_v<T> ? node->is_number() : node->is_integer();
    const double value = fits ? node->value<double>().value_or(low - 1) : low - 1;
    if (!(value >= low && value <= high)) {
      return error_at(
          *node, key,
          fmt::format("must be {} from {} to {}",
                      std::is_floating_point_v<T> ? "a number" : "an integer", low, high));
    }
    target = static_cast<T>(value);
    return Ok{};
  }

  const toml::node* node(std::string_view key) const { return table_.get(key); }

 private:
  const std::string where_;
  const std::string name_;
  const toml::table& table_;
};

}  // namespace puna::cli
