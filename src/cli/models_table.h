// SPDX-License-Identifier: Apache-2.0
// Reads the [[model]] of a TOML file; apart from models_file.h, whose readers need no toml++.
#pragma once

#include <string>

#include "cli/models_file.h"
#include "cli/toml_file.h"

namespace puna::cli {

// `node`: what the file has under "model"; `where`: "--config models.toml". Errors name file, line
// and key.
Result<ModelConfig> read_models(const std::string& where, const toml::node& node);

}  // namespace puna::cli
