// SPDX-License-Identifier: Apache-2.0
// --config FILE.toml: flags by their names without "--", lists for repeated flags, and a table for
// each class of requests, and one for a model of several variants (docs/configuration.md).
//
//   port = 9000
//   served-model-name = ["small", "default"]
//   [class.batch]
//   kv-share = 0.5
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "cli/models_file.h"
#include "engine/engine.h"

namespace puna::cli {

using ClassPolicies = std::array<engine::ClassPolicy, engine::kNumClasses>;

struct Setting {
  std::string name;
  std::vector<std::string> values;
  uint32_t line = 0;
};

struct ConfigFile {
  std::vector<Setting> settings;
  ClassPolicies classes = engine::EngineConfig{}.classes;  // with what [class.*] says
  std::optional<ModelConfig> model;                        // [[model]]
};

// Errors name the file, the line and the key. Other tables, dates and nested lists are refused.
Result<ConfigFile> read_config_file(const std::string& path);

}  // namespace puna::cli
