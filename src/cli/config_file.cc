// SPDX-License-Identifier: Apache-2.0
#include "cli/config_file.h"

#include <filesystem>
#include <optional>

#define TOML_EXCEPTIONS 0
#define TOML_ENABLE_FORMATTERS 0
#include <toml++/toml.h>

namespace puna::cli {
namespace {

constexpr uintmax_t kMaxBytes = 1 << 20;

std::optional<std::string> scalar_text(const toml::node& node) {
  if (const auto* text = node.as_string()) return text->get();
  if (const auto* flag = node.as_boolean()) return flag->get() ? "true" : "false";
  if (const auto* number = node.as_integer()) return std::to_string(number->get());
  if (const auto* number = node.as_floating_point()) return fmt::format("{}", number->get());
  return std::nullopt;
}

std::optional<std::vector<std::string>> texts(const toml::node& node) {
  std::vector<std::string> values;
  if (const toml::array* list = node.as_array()) {
    for (const toml::node& element : *list) {
      auto text = scalar_text(element);
      if (!text) return std::nullopt;
      values.push_back(std::move(*text));
    }
    return values;
  }
  auto text = scalar_text(node);
  if (!text) return std::nullopt;
  values.push_back(std::move(*text));
  return values;
}

}  // namespace

Result<std::vector<Setting>> read_config_file(const std::string& path) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored)) {
    return Error(ErrorCode::kNotFound, "--config {}: no such file", path);
  }
  if (std::filesystem::file_size(path, ignored) > kMaxBytes) {
    return Error(ErrorCode::kInvalidArgument, "--config {}: larger than {} bytes", path, kMaxBytes);
  }
  toml::parse_result parsed = toml::parse_file(path);
  if (!parsed) {
    return Error(ErrorCode::kCorrupt, "--config {}:{}: {}", path,
                 parsed.error().source().begin.line,
                 std::string_view(parsed.error().description()));
  }
  std::vector<Setting> settings;
  for (const auto& [key, node] : parsed.table()) {
    auto values = texts(node);
    const uint32_t line = static_cast<uint32_t>(node.source().begin.line);
    if (!values) {
      return Error(ErrorCode::kInvalidArgument,
                   "--config {}:{}: {} must be a string, a number, true, false or a list of these",
                   path, line, key.str());
    }
    settings.push_back({std::string(key.str()), std::move(*values), line});
  }
  return settings;
}

}  // namespace puna::cli
