// SPDX-License-Identifier: Apache-2.0
// Which weights: SHA-256 over a GGUF file (all shards in order), or over a folder's safetensors
// files in the order of their names. About a second per GB.
#pragma once

#include <string>

#include "base/result.h"

namespace puna::check {

// 64 hex digits. Errors: kNotFound or kIo with the path.
Result<std::string> weights_hash(const std::string& path);

}  // namespace puna::check
