// SPDX-License-Identifier: Apache-2.0
// --api-keys-file FILE.toml: who may call, and how much (docs/configuration.md).
//
//   [[key]]
//   key = "sk-…"
//   name = "alice"              # keys of one name share its part of the machine
//   class = "interactive"       # the highest it may ask for
//   weight = 2.0
//   tokens-per-minute = 60000   # prompt and output
#pragma once

#include <string>
#include <vector>

#include "api/api_keys.h"
#include "base/result.h"

namespace puna::cli {

inline constexpr size_t kMaxKeys = 10'000;
inline constexpr double kMaxWeight = 1'000;

// Errors name file, line and key, never the secret.
Result<std::vector<api::KeyPolicy>> read_keys_file(const std::string& path);

}  // namespace puna::cli
