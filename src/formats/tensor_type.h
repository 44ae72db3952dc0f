// SPDX-License-Identifier: Apache-2.0
// How the numbers of a tensor are stored. Values are ggml's type ids (GGUF v3); safetensors maps
// onto kF32, kF16 and kBF16. A block is the smallest unit that decodes alone.
// Source: ggml docs/gguf.md and ggml-common.h.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace puna::formats {

enum class TensorType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kIQ4_NL = 20,
  kIQ4_XS = 23,
  kBF16 = 30,
};

struct TensorTypeInfo {
  TensorType type;
  std::string_view name;    // "Q4_K", as GGUF tools print it
  uint32_t block_elements;  // elements per block, 1 for plain floats
  uint32_t block_bytes;     // bytes per block
};

// Null when Puna does not read the type.
const TensorTypeInfo* find_tensor_type(uint32_t ggml_id);
const TensorTypeInfo& tensor_type_info(TensorType type);
std::string_view tensor_type_name(TensorType type);

// Bytes of `elements` values (a multiple of block_elements), or nullopt on overflow.
std::optional<uint64_t> tensor_bytes(TensorType type, uint64_t elements);

}  // namespace puna::formats
