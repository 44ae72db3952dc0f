// SPDX-License-Identifier: Apache-2.0
#include "quant/encode.h"

#include <cstring>

#include "base/check.h"
#include "base/numeric.h"
#include "quant/block_types.h"
#include "quant/encode_kernels.h"

namespace puna::quant {
namespace {

using formats::TensorType;

// One overload per plain type.

void encode_block(const float* values, Float16& block) { block = to_float16(*values); }
void encode_block(const float* values, BFloat16& block) { block = to_bfloat16(*values); }
void encode_block(const float* values, float& block) { block = *values; }

template <typename Block>
void encode_all(std::span<const float> values, size_t block_elements, std::span<std::byte> blocks) {
  const size_t count = values.size() / block_elements;
  for (size_t i = 0; i < count; ++i) {
    Block block;
    encode_block(values.data() + i * block_elements, block);
    std::memcpy(blocks.data() + i * sizeof(Block), &block, sizeof(Block));
  }
}

}  // namespace

EncodeBlocks encode_blocks() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw")) {
    return encode_blocks_avx512;
  }
  if (__builtin_cpu_supports("avx2")) return encode_blocks_avx2;
#endif
  return encode_blocks_generic;
}

FitGroup fit_group() {
#if defined(__x86_64__)
  if (encode_blocks() == encode_blocks_avx512) return fit_group_avx512;
  if (encode_blocks() == encode_blocks_avx2) return fit_group_avx2;
#endif
  return fit_group_generic;
}

DecodeHalves decode_halves() {
#if defined(__x86_64__)
  if (encode_blocks() == encode_blocks_avx512) return decode_halves_avx512;
  if (encode_blocks() == encode_blocks_avx2) return decode_halves_avx2;
#endif
  return decode_halves_generic;
}

QuadraticForms quadratic_forms() {
#if defined(__x86_64__)
  if (encode_blocks() == encode_blocks_avx512) return quadratic_forms_avx512;
  if (encode_blocks() == encode_blocks_avx2) return quadratic_forms_avx2;
#endif
  return quadratic_forms_generic;
}

bool can_encode(TensorType type) { return type != TensorType::kIQ4_XS; }

void encode(TensorType type, std::span<const float> values, std::span<std::byte> blocks,
            std::span<const float> importance) {
  const formats::TensorTypeInfo& info = formats::tensor_type_info(type);
  const size_t elements = info.block_elements;
  CHECK_EQ(values.size() % elements, 0U);
  CHECK_EQ(blocks.size(), values.size() / elements * info.block_bytes);
  CHECK(importance.empty() || importance.size() == values.size());
  CHECK(can_encode(type));
  switch (type) {
    case TensorType::kF32:
      return encode_all<float>(values, elements, blocks);
    case TensorType::kF16:
      return encode_all<Float16>(values, elements, blocks);
    case TensorType::kBF16:
      return encode_all<BFloat16>(values, elements, blocks);
    default:
      static const EncodeBlocks kEncode = encode_blocks();
      return kEncode(type, values.data(), importance.empty() ? nullptr : importance.data(),
                     values.size() / elements, blocks.data());
  }
}

}  // namespace puna::quant
