// SPDX-License-Identifier: Apache-2.0
#include "quant/dequant.h"

#include <cstring>

#include "base/check.h"
#include "base/numeric.h"
#include "quant/block_types.h"
#include "quant/encode_kernels.h"

namespace puna::quant {
namespace {

using formats::TensorType;

int low_nibble(uint8_t byte) { return byte & 15; }
int high_nibble(uint8_t byte) { return byte >> 4; }
int bit(uint8_t byte, int index) { return (byte >> index) & 1; }
float as_float(int value) { return static_cast<float>(value); }

// One overload per block type: decodes the block into the elements at `out`.

void decode(const BlockQ4_0& block, float* out) {
  const float d = to_float(block.d);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * as_float(low_nibble(block.qs[i]) - 8);
    out[i + 16] = d * as_float(high_nibble(block.qs[i]) - 8);
  }
}

void decode(const BlockQ4_1& block, float* out) {
  const float d = to_float(block.d);
  const float m = to_float(block.m);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * as_float(low_nibble(block.qs[i])) + m;
    out[i + 16] = d * as_float(high_nibble(block.qs[i])) + m;
  }
}

void decode(const BlockQ5_0& block, float* out) {
  const float d = to_float(block.d);
  for (int i = 0; i < 16; ++i) {
    const int low = low_nibble(block.qs[i]) | (bit(block.qh[i / 8], i % 8) << 4);
    const int high = high_nibble(block.qs[i]) | (bit(block.qh[2 + i / 8], i % 8) << 4);
    out[i] = d * as_float(low - 16);
    out[i + 16] = d * as_float(high - 16);
  }
}

void decode(const BlockQ5_1& block, float* out) {
  const float d = to_float(block.d);
  const float m = to_float(block.m);
  for (int i = 0; i < 16; ++i) {
    const int low = low_nibble(block.qs[i]) | (bit(block.qh[i / 8], i % 8) << 4);
    const int high = high_nibble(block.qs[i]) | (bit(block.qh[2 + i / 8], i % 8) << 4);
    out[i] = d * as_float(low) + m;
    out[i + 16] = d * as_float(high) + m;
  }
}

void decode(const BlockQ8_0& block, float* out) {
  const float d = to_float(block.d);
  for (int i = 0; i < 32; ++i) out[i] = d * as_float(block.qs[i]);
}

void decode(const BlockQ2_K& block, float* out) {
  const float d = to_float(block.d);
  const float dmin = to_float(block.dmin);
  for (int group = 0; group < 16; ++group) {
    const float scale = d * as_float(low_nibble(block.scales[group]));
    const float minimum = dmin * as_float(high_nibble(block.scales[group]));
    const uint8_t* qs = block.qs + (group / 8) * 32 + (group % 2) * 16;
    const int shift = (group % 8) / 2 * 2;
    for (int i = 0; i < 16; ++i)
      out[group * 16 + i] = scale * as_float((qs[i] >> shift) & 3) - minimum;
  }
}

void decode(const BlockQ3_K& block, float* out) {
  const float d = to_float(block.d);
  for (int group = 0; group < 16; ++group) {
    const float scale = d * as_float(packed_scale_q3(block.scales, group));
    const int half = (group % 2) * 16;
    const uint8_t* qs = block.qs + (group / 8) * 32 + half;
    const int shift = (group % 8) / 2 * 2;
    for (int i = 0; i < 16; ++i) {
      const int offset = bit(block.hmask[half + i], group / 2) != 0 ? 0 : 4;
      out[group * 16 + i] = scale * as_float(((qs[i] >> shift) & 3) - offset);
    }
  }
}

void decode(const BlockQ4_K& block, float* out) {
  const float d = to_float(block.d);
  const float dmin = to_float(block.dmin);
  for (int group = 0; group < 8; ++group) {
    const ScaleMin packed = packed_scale_min(block.scales, group);
    const float scale = d * as_float(packed.scale);
    const float minimum = dmin * as_float(packed.minimum);
    const uint8_t* qs = block.qs + (group / 2) * 32;
    const int shift = (group % 2) * 4;
    for (int i = 0; i < 32; ++i)
      out[group * 32 + i] = scale * as_float((qs[i] >> shift) & 15) - minimum;
  }
}

void decode(const BlockQ5_K& block, float* out) {
  const float d = to_float(block.d);
  const float dmin = to_float(block.dmin);
  for (int group = 0; group < 8; ++group) {
    const ScaleMin packed = packed_scale_min(block.scales, group);
    const float scale = d * as_float(packed.scale);
    const float minimum = dmin * as_float(packed.minimum);
    const uint8_t* qs = block.qs + (group / 2) * 32;
    const int shift = (group % 2) * 4;
    for (int i = 0; i < 32; ++i) {
      const int q = ((qs[i] >> shift) & 15) | (bit(block.qh[i], group) << 4);
      out[group * 32 + i] = scale * as_float(q) - minimum;
    }
  }
}

void decode(const BlockQ6_K& block, float* out) {
  const float d = to_float(block.d);
  for (int run = 0; run < 8; ++run) {  // 32 elements; four runs per half of the block
    const uint8_t* ql = block.ql + (run / 4) * 64 + (run % 2) * 32;
    const uint8_t* qh = block.qh + (run / 4) * 32;
    const int low_shift = (run % 4) / 2 * 4;
    const int high_shift = (run % 4) * 2;
    for (int i = 0; i < 32; ++i) {
      const float scale = d * as_float(block.scales[run * 2 + i / 16]);
      const int q = ((ql[i] >> low_shift) & 15) | (((qh[i] >> high_shift) & 3) << 4);
      out[run * 32 + i] = scale * as_float(q - 32);
    }
  }
}

void decode(const BlockIQ4_NL& block, float* out) {
  const float d = to_float(block.d);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * as_float(kIq4Values[low_nibble(block.qs[i])]);
    out[i + 16] = d * as_float(kIq4Values[high_nibble(block.qs[i])]);
  }
}

void decode(const BlockIQ4_XS& block, float* out) {
  const float d = to_float(block.d);
  for (int group = 0; group < 8; ++group) {
    const int low = (block.scales_l[group / 2] >> (group % 2 * 4)) & 15;
    const int high = (block.scales_h >> (2 * group)) & 3;
    const float scale = d * as_float((low | (high << 4)) - 32);
    const uint8_t* qs = block.qs + group * 16;
    for (int i = 0; i < 16; ++i) {
      out[group * 32 + i] = scale * as_float(kIq4Values[low_nibble(qs[i])]);
      out[group * 32 + i + 16] = scale * as_float(kIq4Values[high_nibble(qs[i])]);
    }
  }
}

void decode(const BFloat16& value, float* out) { *out = to_float(value); }
void decode(const float& value, float* out) { *out = value; }

template <typename Block>
void decode_all(std::span<const std::byte> blocks, size_t block_elements, std::span<float> out) {
  const size_t count = out.size() / block_elements;
  for (size_t i = 0; i < count; ++i) {
    Block block;
    std::memcpy(&block, blocks.data() + i * sizeof(Block), sizeof(Block));
    decode(block, out.data() + i * block_elements);
  }
}

}  // namespace

void dequantize(TensorType type, std::span<const std::byte> blocks, std::span<float> out) {
  const formats::TensorTypeInfo& info = formats::tensor_type_info(type);
  const size_t elements = info.block_elements;
  CHECK_EQ(out.size() % elements, 0U);
  CHECK_EQ(blocks.size(), out.size() / elements * info.block_bytes);
  switch (type) {
    case TensorType::kF32:
      return decode_all<float>(blocks, elements, out);
    case TensorType::kF16:
      static const DecodeHalves kDecode = decode_halves();
      return kDecode(blocks.data(), out.size(), out.data());
    case TensorType::kBF16:
      return decode_all<BFloat16>(blocks, elements, out);
    case TensorType::kQ4_0:
      return decode_all<BlockQ4_0>(blocks, elements, out);
    case TensorType::kQ4_1:
      return decode_all<BlockQ4_1>(blocks, elements, out);
    case TensorType::kQ5_0:
      return decode_all<BlockQ5_0>(blocks, elements, out);
    case TensorType::kQ5_1:
      return decode_all<BlockQ5_1>(blocks, elements, out);
    case TensorType::kQ8_0:
      return decode_all<BlockQ8_0>(blocks, elements, out);
    case TensorType::kQ2_K:
      return decode_all<BlockQ2_K>(blocks, elements, out);
    case TensorType::kQ3_K:
      return decode_all<BlockQ3_K>(blocks, elements, out);
    case TensorType::kQ4_K:
      return decode_all<BlockQ4_K>(blocks, elements, out);
    case TensorType::kQ5_K:
      return decode_all<BlockQ5_K>(blocks, elements, out);
    case TensorType::kQ6_K:
      return decode_all<BlockQ6_K>(blocks, elements, out);
    case TensorType::kIQ4_NL:
      return decode_all<BlockIQ4_NL>(blocks, elements, out);
    case TensorType::kIQ4_XS:
      return decode_all<BlockIQ4_XS>(blocks, elements, out);
  }
}

}  // namespace puna::quant
