// SPDX-License-Identifier: Apache-2.0
// config.json of a Llama model as a ModelSpec. Internal to formats.
#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "formats/model_spec.h"

namespace puna::formats {

// All of the spec but eos_token_ids; what Puna would compute wrongly is refused by name. The values
// still have to pass check_spec. `where` names the file in messages.
Result<ModelSpec> read_hugging_face_config(const boost::json::object& config,
                                           const std::string& where);

// "eos_token_id" of config.json or generation_config.json: absent (empty), a token, or a list of
// tokens.
Result<std::vector<int32_t>> read_eos_tokens(const boost::json::object& object,
                                             const std::string& where);

}  // namespace puna::formats
