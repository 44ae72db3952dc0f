// SPDX-License-Identifier: Apache-2.0
// Which type each tensor of a model gets. A mix is a default type with upgrades where errors hurt
// most (values, the down projection, the output head) and a fallback where a row is not whole
// blocks. The same choices as llama-quantize's for dense Llama models, so that files of the same
// name mean the same.
//
//   ASSIGN_OR_RETURN(Mix mix, find_mix("Q4_K_M"));
//   TensorType type = mix_type(mix, {WeightRole::kAttnV, 3}, spec, columns, with_importance);
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "formats/checkpoint.h"
#include "formats/model_spec.h"
#include "formats/tensor_type.h"

namespace puna::quant {

enum class Mix : uint8_t {
  kF32,
  kF16,
  kBF16,
  kQ8_0,
  kQ6_K,
  kQ5_K_M,
  kQ5_K_S,
  kQ4_K_M,
  kQ4_K_S,
  kQ3_K_L,
  kQ3_K_M,
  kQ3_K_S,
  kQ2_K,
  kQ5_1,
  kQ5_0,
  kQ4_1,
  kQ4_0,
  kIQ4_NL,
};

// By its name, in any case. Errors: kInvalidArgument with the names that there are.
Result<Mix> find_mix(std::string_view name);
std::string_view mix_name(Mix mix);
std::string mix_names();  // "Q8_0, Q6_K, ..."
// general.file_type in GGUF. Source: enum llama_ftype of llama.h.
uint32_t mix_file_type(Mix mix);

// The type of one weight; vectors are F32. `has_importance`: an importance matrix is in use, which
// lets Q4_0 and Q5_0 take a minimum in the first layers.
formats::TensorType mix_type(Mix mix, formats::WeightId id, const formats::ModelSpec& spec,
                             int64_t columns, bool has_importance);

}  // namespace puna::quant
