// SPDX-License-Identifier: Apache-2.0
#include "cli/models_file.h"

#include <array>
#include <utility>

#include "cli/models_table.h"
#include "route/policy.h"

namespace puna::cli {
namespace {

constexpr size_t kLongestName = 64;

// What may stand in a header, a label, JSON and after "model:" as it is.
bool is_plain(std::string_view name) {
  for (const char c : name) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (!letter && !(c >= '0' && c <= '9') && c != '-' && c != '_' && c != '.') return false;
  }
  return !name.empty() && name.size() <= kLongestName;
}

Result<> read_kv_dtype(const TomlTable& table, std::optional<kernels::KvType>& kv_dtype) {
  constexpr std::array<std::pair<std::string_view, kernels::KvType>, 3> kTypes = {{
      {"bf16", kernels::KvType::kBF16},
      {"int8", kernels::KvType::kInt8},
      {"f32", kernels::KvType::kF32},
  }};
  for (const std::string_view key : {"kv-dtype", "kv_dtype"}) {
    std::string text;
    RETURN_IF_ERROR(table.text(key, text));
    if (text.empty() || text == "auto") continue;
    for (const auto& [name, type] : kTypes) {
      if (text == name) kv_dtype = type;
    }
    if (!kv_dtype) {
      return table.error_at(*table.node(key), key,
                            "must be \"auto\", \"bf16\", \"int8\" or \"f32\"");
    }
  }
  return Ok{};
}

Result<VariantConfig> read_variant(const TomlTable& table) {
  static constexpr std::string_view kKnown[] = {"name",     "path",        "kv-dtype",
                                                "kv_dtype", "certificate", "role"};
  RETURN_IF_ERROR(table.check_known(kKnown));
  VariantConfig variant;
  std::string role;
  RETURN_IF_ERROR(table.text("name", variant.name));
  RETURN_IF_ERROR(table.text("path", variant.path));
  RETURN_IF_ERROR(table.text("certificate", variant.certificate));
  RETURN_IF_ERROR(table.text("role", role));
  RETURN_IF_ERROR(read_kv_dtype(table, variant.kv_dtype));
  if (variant.name.empty()) return table.error("has no \"name\"");
  if (!is_plain(variant.name)) {
    return table.error_at(*table.node("name"), "name",
                          "must have 1 to 64 letters, digits, '-', '_' or '.'");
  }
  if (variant.path.empty()) return table.error("has no \"path\"");
  if (!role.empty() && role != "base") {
    return table.error_at(*table.node("role"), "role", "must be \"base\"");
  }
  variant.base = role == "base";
  if (variant.base && !variant.certificate.empty()) {
    return table.error_at(*table.node("certificate"), "certificate",
                          "is not for the base, with which certificates compare");
  }
  variant.where = table.place();
  return variant;
}

Result<> check_together(const TomlTable& model, const std::vector<VariantConfig>& variants) {
  size_t bases = 0;
  for (size_t i = 0; i < variants.size(); ++i) {
    bases += variants[i].base ? 1 : 0;
    for (size_t other = 0; other < i; ++other) {
      if (variants[i].name != variants[other].name) continue;
      return Error(ErrorCode::kInvalidArgument, "{} has the name \"{}\" of another",
                   variants[i].where, variants[i].name);
    }
  }
  if (bases == 1) return Ok{};
  return model.error(bases == 0 ? "has no variant with role = \"base\""
                                : "has more than one variant with role = \"base\"");
}

}  // namespace

Result<ModelConfig> read_models(const std::string& where, const toml::node& node) {
  const toml::array* list = node.as_array();
  if (list == nullptr || list->size() != 1 || !list->front().is_table()) {
    return Error(ErrorCode::kInvalidArgument, "{}:{}: model must be one table [[model]]", where,
                 line_of(node));
  }
  const toml::table& fields = *list->front().as_table();
  const TomlTable table(where, "model", fields);
  static constexpr std::string_view kKnown[] = {"name", "certificate-key", "variant"};
  RETURN_IF_ERROR(table.check_known(kKnown));
  ModelConfig model;
  RETURN_IF_ERROR(table.text("name", model.name));
  RETURN_IF_ERROR(table.text("certificate-key", model.certificate_key));
  if (model.name.empty()) return table.error("has no \"name\"");
  const toml::node* variants = table.node("variant");
  const toml::array* tables = variants == nullptr ? nullptr : variants->as_array();
  if (tables == nullptr || tables->empty() || tables->size() > route::kMaxVariants) {
    return table.error(fmt::format("needs 1 to {} tables [[model.variant]]", route::kMaxVariants));
  }
  for (const toml::node& one : *tables) {
    if (!one.is_table()) {
      return Error(ErrorCode::kInvalidArgument,
                   "{}:{}: model.variant must be tables [[model.variant]]", where, line_of(one));
    }
    ASSIGN_OR_RETURN(VariantConfig variant,
                     read_variant(TomlTable(where, "model.variant", *one.as_table())));
    model.variants.push_back(std::move(variant));
  }
  RETURN_IF_ERROR(check_together(table, model.variants));
  return model;
}

}  // namespace puna::cli
