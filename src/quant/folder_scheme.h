// SPDX-License-Identifier: Apache-2.0
// What a compressed-tensors folder holds. Source: llm-compressor's presets.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace puna::quant {

enum class FolderScheme : uint8_t {
  kFp8Dynamic,  // e4m3 with a scale per row; activations to fp8 per token
  kW8A8,        // int8 with a scale per row; activations to int8 per token
  kW4A16,       // int4 with a scale per group of columns
};

// "FP8_DYNAMIC", "W8A8", "W4A16", in any case.
std::optional<FolderScheme> find_folder_scheme(std::string_view name);

}  // namespace puna::quant
