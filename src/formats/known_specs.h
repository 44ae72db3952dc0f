// SPDX-License-Identifier: Apache-2.0
// Shapes of well-known models, for weights that are made instead of read. Source: the models'
// config.json.
#pragma once

#include <string_view>

#include "base/result.h"
#include "formats/model_spec.h"

namespace puna::formats {

// "llama-3-8b", or "llama-3-8b:N" for its first N layers alone. Errors: kInvalidArgument with the
// names that there are.
Result<ModelSpec> known_spec(std::string_view name);

}  // namespace puna::formats
