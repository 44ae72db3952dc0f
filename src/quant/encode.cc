// SPDX-License-Identifier: Apache-2.0
#include "quant/encode.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "base/numeric.h"
#include "quant/block_types.h"

namespace puna::quant {
namespace {

using formats::TensorType;

// 1 / d, and 0 for a block of zeros.
float inverse(float d) { return d == 0.0F ? 0.0F : 1.0F / d; }

// Truncates to 0 ... 15; NaN gives 0.
uint8_t to_nibble(float value) {
  if (!(value > 0.0F)) return 0;
  return value >= 15.0F ? uint8_t{15} : static_cast<uint8_t>(value);
}

// Rounds halves away from zero, to -127 ... 127; NaN gives 0.
int8_t to_int8(float value) {
  if (std::isnan(value)) return 0;
  return static_cast<int8_t>(std::round(std::clamp(value, -127.0F, 127.0F)));
}

uint8_t pack(uint8_t low, uint8_t high) { return static_cast<uint8_t>(low | (high << 4)); }

// One overload per block type: encodes the block from the elements at `values`.

void encode_block(const float* values, BlockQ8_0& block) {
  float largest = 0.0F;
  for (int i = 0; i < 32; ++i) largest = std::max(largest, std::fabs(values[i]));
  const float d = largest / 127.0F;
  const float id = inverse(d);
  block.d = to_float16(d);
  for (int i = 0; i < 32; ++i) block.qs[i] = to_int8(values[i] * id);
}

// The element of largest magnitude gets the code 0, which decodes to -8 * d: exact for it.
void encode_block(const float* values, BlockQ4_0& block) {
  float extreme = values[0];
  for (int i = 1; i < 32; ++i) {
    if (std::fabs(values[i]) > std::fabs(extreme)) extreme = values[i];
  }
  const float d = extreme / -8.0F;
  const float id = inverse(d);
  block.d = to_float16(d);
  for (int i = 0; i < 16; ++i) {
    block.qs[i] = pack(to_nibble(values[i] * id + 8.5F), to_nibble(values[i + 16] * id + 8.5F));
  }
}

void encode_block(const float* values, BlockQ4_1& block) {
  const auto [smallest, largest] = std::minmax_element(values, values + 32);
  const float minimum = *smallest;
  const float d = (*largest - minimum) / 15.0F;
  const float id = inverse(d);
  block.d = to_float16(d);
  block.m = to_float16(minimum);
  for (int i = 0; i < 16; ++i) {
    block.qs[i] = pack(to_nibble((values[i] - minimum) * id + 0.5F),
                       to_nibble((values[i + 16] - minimum) * id + 0.5F));
  }
}

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

bool can_encode(TensorType type) {
  switch (type) {
    case TensorType::kF32:
    case TensorType::kF16:
    case TensorType::kBF16:
    case TensorType::kQ8_0:
    case TensorType::kQ4_0:
    case TensorType::kQ4_1:
      return true;
    default:
      return false;
  }
}

void encode(TensorType type, std::span<const float> values, std::span<std::byte> blocks) {
  const formats::TensorTypeInfo& info = formats::tensor_type_info(type);
  const size_t elements = info.block_elements;
  CHECK_EQ(values.size() % elements, 0U);
  CHECK_EQ(blocks.size(), values.size() / elements * info.block_bytes);
  switch (type) {
    case TensorType::kF32:
      return encode_all<float>(values, elements, blocks);
    case TensorType::kF16:
      return encode_all<Float16>(values, elements, blocks);
    case TensorType::kBF16:
      return encode_all<BFloat16>(values, elements, blocks);
    case TensorType::kQ8_0:
      return encode_all<BlockQ8_0>(values, elements, blocks);
    case TensorType::kQ4_0:
      return encode_all<BlockQ4_0>(values, elements, blocks);
    case TensorType::kQ4_1:
      return encode_all<BlockQ4_1>(values, elements, blocks);
    default:
      CHECK(can_encode(type));
  }
}

}  // namespace puna::quant
