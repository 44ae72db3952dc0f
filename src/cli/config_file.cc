// SPDX-License-Identifier: Apache-2.0
#include "cli/config_file.h"

#include <optional>

#include "api/request_terms.h"
#include "cli/models_table.h"
#include "cli/toml_file.h"

namespace puna::cli {
namespace {

constexpr std::string_view kFlag = "--config";
constexpr double kMostSeconds = 86'400;
constexpr double kMostTokens = 1ULL << 32U;
constexpr double kMostOutput = 1 << 24;
constexpr double kLeastShare = 0.01;

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

TimeNs to_ns(double value, TimeNs unit_ns) {
  return static_cast<TimeNs>(value * static_cast<double>(unit_ns));
}

Result<> read_class(const TomlTable& table, engine::ClassPolicy& policy) {
  static constexpr std::string_view kKnown[] = {"max-queued-tokens", "max-queue-seconds",
                                                "max-output-tokens", "default-output-tokens",
                                                "kv-share",          "tpot-target-ms"};
  RETURN_IF_ERROR(table.check_known(kKnown));
  double queue_s = static_cast<double>(policy.max_queue_time_ns) / kNsPerSecond;
  double tpot_ms = static_cast<double>(policy.tpot_target_ns) / kNsPerMs;
  RETURN_IF_ERROR(table.number("max-queued-tokens", 1, kMostTokens, policy.max_queued_tokens));
  RETURN_IF_ERROR(table.number("max-queue-seconds", 0.0, kMostSeconds, queue_s));
  RETURN_IF_ERROR(table.number("max-output-tokens", 0, kMostOutput, policy.max_output_tokens));
  RETURN_IF_ERROR(
      table.number("default-output-tokens", 1, kMostOutput, policy.default_output_tokens));
  RETURN_IF_ERROR(table.number("kv-share", kLeastShare, 1.0, policy.kv_share));
  RETURN_IF_ERROR(table.number("tpot-target-ms", 0.0, kMostSeconds * 1000, tpot_ms));
  policy.max_queue_time_ns = to_ns(queue_s, kNsPerSecond);
  policy.tpot_target_ns = to_ns(tpot_ms, kNsPerMs);
  if (policy.max_output_tokens > 0 && policy.default_output_tokens > policy.max_output_tokens) {
    const bool given = table.node("default-output-tokens") != nullptr;
    if (given) {
      return table.error_at(*table.node("default-output-tokens"), "default-output-tokens",
                            fmt::format("is above max-output-tokens {}", policy.max_output_tokens));
    }
    policy.default_output_tokens = policy.max_output_tokens;
  }
  return Ok{};
}

// A class above another must be able to hold at least as much of the pool, or the lower one could
// keep it out.
Result<> check_shares(const std::string& where, const toml::table& tables,
                      const ClassPolicies& classes) {
  for (size_t i = 1; i < classes.size(); ++i) {
    if (classes[i].kv_share <= classes[i - 1].kv_share) continue;
    const auto name_of = [](size_t index) {
      return api::class_name(static_cast<engine::RequestClass>(index));
    };
    const toml::node* culprit = tables.get(name_of(i));
    if (culprit == nullptr) culprit = tables.get(name_of(i - 1));
    return Error(ErrorCode::kInvalidArgument,
                 "{}:{}: class.{}.kv-share {} is above class.{}.kv-share {}: a lower class may not "
                 "hold more of the KV pool than a higher one",
                 where, culprit == nullptr ? 0 : line_of(*culprit), name_of(i), classes[i].kv_share,
                 name_of(i - 1), classes[i - 1].kv_share);
  }
  return Ok{};
}

Result<> read_classes(const std::string& where, const toml::node& node, ClassPolicies& classes) {
  const toml::table* tables = node.as_table();
  if (tables == nullptr) {
    return Error(ErrorCode::kInvalidArgument, "{}:{}: class must be tables, as [class.batch]",
                 where, line_of(node));
  }
  for (const auto& [key, table] : *tables) {
    const auto named = api::class_named(key.str());
    if (!named || !table.is_table()) {
      return Error(ErrorCode::kInvalidArgument,
                   "{}:{}: there is no class \"{}\"; there are interactive, batch and background",
                   where, line_of(table), key.str());
    }
    RETURN_IF_ERROR(
        read_class(TomlTable(where, fmt::format("class.{}", key.str()), *table.as_table()),
                   classes[static_cast<size_t>(*named)]));
  }
  return check_shares(where, *tables, classes);
}

}  // namespace

Result<ConfigFile> read_config_file(const std::string& path) {
  ASSIGN_OR_RETURN(const toml::table file, open_toml(kFlag, path));
  const std::string where = fmt::format("{} {}", kFlag, path);
  ConfigFile config;
  for (const auto& [key, node] : file) {
    if (key.str() == "class") {
      RETURN_IF_ERROR(read_classes(where, node, config.classes));
      continue;
    }
    if (key.str() == "model" && node.is_array_of_tables()) {
      ASSIGN_OR_RETURN(config.model, read_models(where, node));
      continue;
    }
    auto values = texts(node);
    if (!values) {
      return Error(ErrorCode::kInvalidArgument,
                   "{}:{}: {} must be a string, a number, true, false or a list of these", where,
                   line_of(node), key.str());
    }
    config.settings.push_back({std::string(key.str()), std::move(*values), line_of(node)});
  }
  return config;
}

}  // namespace puna::cli
