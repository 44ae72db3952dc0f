// SPDX-License-Identifier: Apache-2.0
// Shapes of well-known models, for plans of models that aren't here (`puna plan --shape`) and for
// weights that are made instead of read (`--random-weights`). Frequencies are unscaled. Source: the
// models' config.json and generation_config.json on Hugging Face.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "formats/model_spec.h"

namespace puna::formats {

// "llama-3-8b", or "llama-3-8b:N" for its first N layers alone. Errors: kInvalidArgument with the
// names that there are.
Result<ModelSpec> known_spec(std::string_view name);
std::string known_spec_names();  // "llama-3-8b, …"

}  // namespace puna::formats
