// SPDX-License-Identifier: Apache-2.0
// --config FILE.toml: flags by their names without "--". Lists stand for repeated flags.
//
//   port = 9000
//   served-model-name = ["small", "default"]
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"

namespace puna::cli {

struct Setting {
  std::string name;
  std::vector<std::string> values;
  uint32_t line = 0;
};

// Errors name the file and the line. Tables, dates and nested lists are refused.
Result<std::vector<Setting>> read_config_file(const std::string& path);

}  // namespace puna::cli
