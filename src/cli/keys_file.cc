// SPDX-License-Identifier: Apache-2.0
#include "cli/keys_file.h"

#include <unordered_map>
#include <unordered_set>

#include "api/request_terms.h"
#include "cli/toml_file.h"

namespace puna::cli {
namespace {

constexpr std::string_view kKeysFlag = "--api-keys-file";
constexpr double kLeastWeight = 0.001;

Result<api::KeyPolicy> read_key(const TomlTable& table) {
  static constexpr std::string_view kKnown[] = {"key",    "name",        "class",
                                                "weight", "cache-share", "tokens-per-minute"};
  RETURN_IF_ERROR(table.check_known(kKnown));
  api::KeyPolicy policy;
  std::string class_name;
  RETURN_IF_ERROR(table.text("key", policy.key));
  RETURN_IF_ERROR(table.text("name", policy.tenant));
  RETURN_IF_ERROR(table.text("class", class_name));
  RETURN_IF_ERROR(table.number("weight", kLeastWeight, kMaxWeight, policy.weight));
  RETURN_IF_ERROR(table.number("cache-share", 0.0, 1.0, policy.cache_share));
  RETURN_IF_ERROR(table.number("tokens-per-minute", 0.0,
                               static_cast<double>(api::kMaxTokensPerMinute),
                               policy.tokens_per_minute));
  if (policy.key.empty()) return table.error("has no \"key\"");
  if (table.node("name") == nullptr) return table.error("has no \"name\"");
  if (class_name.empty()) return policy;
  const auto named = api::class_named(class_name);
  if (!named) {
    return table.error_at(*table.node("class"), "class",
                          "must be \"interactive\", \"batch\" or \"background\"");
  }
  policy.highest_class = *named;
  return policy;
}

// What keys say about each other.
class Together {
 public:
  Result<> add(const api::KeyPolicy& policy, const TomlTable& table) {
    if (!keys_.insert(policy.key).second) {
      return table.error_at(*table.node("key"), "key", "is there twice");
    }
    const auto [found, first] = tenants_.emplace(policy.tenant, policy);
    const api::KeyPolicy& known = found->second;
    if (!first && (known.weight != policy.weight || known.cache_share != policy.cache_share)) {
      return table.error_at(*table.node("name"), "name",
                            fmt::format("{} has another weight or cache-share in an earlier key; "
                                        "keys of one name share one",
                                        policy.tenant));
    }
    if (first) shares_ += policy.cache_share;
    if (shares_ > 1.0) {
      return table.error_at(
          *table.node("cache-share"), "cache-share",
          fmt::format("makes {:.2f} of the cache together with the names above; 1 is all",
                      shares_));
    }
    return Ok{};
  }

 private:
  std::unordered_set<std::string> keys_;
  std::unordered_map<std::string, api::KeyPolicy> tenants_;
  double shares_ = 0;
};

}  // namespace

Result<std::vector<api::KeyPolicy>> read_keys_file(const std::string& path) {
  ASSIGN_OR_RETURN(const toml::table file, open_toml(kKeysFlag, path));
  const std::string where = fmt::format("{} {}", kKeysFlag, path);
  for (const auto& [key, node] : file) {
    if (key.str() == "key") continue;
    return Error(ErrorCode::kInvalidArgument, "{}:{}: there is no setting \"{}\", only [[key]]",
                 where, line_of(node), key.str());
  }
  const toml::array* list = file["key"].as_array();
  if (list == nullptr || list->empty() || list->size() > kMaxKeys) {
    return Error(ErrorCode::kInvalidArgument, "{}: needs 1 to {} tables [[key]]", where, kMaxKeys);
  }
  std::vector<api::KeyPolicy> keys;
  Together together;
  for (const toml::node& node : *list) {
    if (!node.is_table()) {
      return Error(ErrorCode::kInvalidArgument, "{}:{}: key must be a table [[key]]", where,
                   line_of(node));
    }
    const TomlTable table(where, "key", *node.as_table());
    ASSIGN_OR_RETURN(api::KeyPolicy policy, read_key(table));
    RETURN_IF_ERROR(together.add(policy, table));
    keys.push_back(std::move(policy));
  }
  return keys;
}

}  // namespace puna::cli
