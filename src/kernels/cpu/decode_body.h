// SPDX-License-Identifier: Apache-2.0
// Vectorised decoders of weight blocks, written once over `Vector`. Each gives the bits of
// quant::dequantize: products of a 16-bit scale with a small integer are exact in f32, so only the
// last addition rounds. Block layouts: quant/block_types.h. Internal linkage: see micro_kernels.h.
#pragma once

#include <cstring>

#include "kernels/cpu/micro_body.h"

namespace puna::kernels {
namespace {

inline float load_half(const std::byte* from) {
  uint16_t bits = 0;
  std::memcpy(&bits, from, sizeof bits);
  return _cvtsh_ss(bits);
}

inline __m128i load16(const std::byte* from) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
}

inline __m128i low_nibbles(__m128i bytes) { return _mm_and_si128(bytes, _mm_set1_epi8(0x0F)); }
inline __m128i high_nibbles(__m128i bytes) { return low_nibbles(_mm_srli_epi16(bytes, 4)); }

// out[0 … 15] = scale * bytes + offset, bytes unsigned.
inline void store_u8(__m128i bytes, Reg scale, Reg offset, float* out) {
  Vector::store(out, Vector::fma(Vector::from_u8<0>(bytes), scale, offset));
  if constexpr (kWidth == 8) {
    Vector::store(out + 8, Vector::fma(Vector::from_u8<1>(bytes), scale, offset));
  }
}

// out[0 … 15] = scale * bytes, bytes signed.
inline void store_s8(__m128i bytes, Reg scale, float* out) {
  Vector::store(out, Vector::mul(Vector::from_s8<0>(bytes), scale));
  if constexpr (kWidth == 8) Vector::store(out + 8, Vector::mul(Vector::from_s8<1>(bytes), scale));
}

void decode_f32(const std::byte* blocks, int64_t count, float* out) {
  std::memcpy(out, blocks, static_cast<size_t>(count) * sizeof(float));
}

void decode_f16(const std::byte* blocks, int64_t count, float* out) {
  from_half(reinterpret_cast<const uint16_t*>(blocks), count, out);
}

void decode_bf16(const std::byte* blocks, int64_t count, float* out) {
  const auto* bits = reinterpret_cast<const uint16_t*>(blocks);
  int64_t i = 0;
  for (; i + kWidth <= count; i += kWidth) Vector::store(out + i, Vector::from_bfloat16(bits + i));
  for (; i < count; ++i) {
    out[i] = 0.0F;
    std::memcpy(reinterpret_cast<char*>(out + i) + 2, bits + i,
                2);  // little-endian: the upper half
  }
}

void decode_q4_0(const std::byte* blocks, int64_t count, float* out) {
  const __m128i eight = _mm_set1_epi8(8);
  for (int64_t i = 0; i < count; i += 32, blocks += 18) {
    const Reg scale = Vector::set(load_half(blocks));
    const __m128i nibbles = load16(blocks + 2);
    store_s8(_mm_sub_epi8(low_nibbles(nibbles), eight), scale, out + i);
    store_s8(_mm_sub_epi8(high_nibbles(nibbles), eight), scale, out + i + 16);
  }
}

void decode_q4_1(const std::byte* blocks, int64_t count, float* out) {
  for (int64_t i = 0; i < count; i += 32, blocks += 20) {
    const Reg scale = Vector::set(load_half(blocks));
    const Reg offset = Vector::set(load_half(blocks + 2));
    const __m128i nibbles = load16(blocks + 4);
    store_u8(low_nibbles(nibbles), scale, offset, out + i);
    store_u8(high_nibbles(nibbles), scale, offset, out + i + 16);
  }
}

void decode_q8_0(const std::byte* blocks, int64_t count, float* out) {
  for (int64_t i = 0; i < count; i += 32, blocks += 34) {
    const Reg scale = Vector::set(load_half(blocks));
    store_s8(load16(blocks + 2), scale, out + i);
    store_s8(load16(blocks + 18), scale, out + i + 16);
  }
}

// Q4_K and Q5_K pack eight 6-bit scales and eight 6-bit minima into twelve bytes.
struct SixBitPair {
  float scale = 0.0F;
  float minimum = 0.0F;
};
inline SixBitPair six_bit_pair(const uint8_t* packed, int index) {
  int scale = packed[index] & 63;
  int minimum = packed[index + 4] & 63;
  if (index >= 4) {
    scale = (packed[index + 4] & 15) | ((packed[index - 4] >> 6) << 4);
    minimum = (packed[index + 4] >> 4) | ((packed[index] >> 6) << 4);
  }
  return {static_cast<float>(scale), static_cast<float>(minimum)};
}

void decode_q4_k(const std::byte* blocks, int64_t count, float* out) {
  for (int64_t i = 0; i < count; i += 256, blocks += 144) {
    const float d = load_half(blocks);
    const float d_min = load_half(blocks + 2);
    const auto* packed = reinterpret_cast<const uint8_t*>(blocks + 4);
    for (int pair = 0; pair < 4; ++pair) {  // 32 bytes hold 32 values in low, 32 in high nibbles
      const SixBitPair low = six_bit_pair(packed, 2 * pair);
      const SixBitPair high = six_bit_pair(packed, 2 * pair + 1);
      const Reg low_scale = Vector::set(d * low.scale);
      const Reg low_offset = Vector::set(-(d_min * low.minimum));
      const Reg high_scale = Vector::set(d * high.scale);
      const Reg high_offset = Vector::set(-(d_min * high.minimum));
      for (int half = 0; half < 2; ++half) {
        const __m128i nibbles = load16(blocks + 16 + 32 * pair + 16 * half);
        float* to = out + i + 64 * pair + 16 * half;
        store_u8(low_nibbles(nibbles), low_scale, low_offset, to);
        store_u8(high_nibbles(nibbles), high_scale, high_offset, to + 32);
      }
    }
  }
}

// Sixteen 6-bit values: four bits from `low`, two from bits [shift, shift + 2) of `high`, minus 32.
template <int kShift>
inline __m128i six_bits(__m128i low, __m128i high) {
  const __m128i two = _mm_and_si128(_mm_srli_epi16(high, kShift), _mm_set1_epi8(3));
  return _mm_sub_epi8(_mm_or_si128(low, _mm_slli_epi16(two, 4)), _mm_set1_epi8(32));
}

void decode_q6_k(const std::byte* blocks, int64_t count, float* out) {
  for (int64_t i = 0; i < count; i += 256, blocks += 210) {
    const float d = load_half(blocks + 208);
    const auto* scales = reinterpret_cast<const int8_t*>(blocks + 192);
    for (int half = 0; half < 2; ++half) {             // of the block: 128 values
      for (int sixteen = 0; sixteen < 2; ++sixteen) {  // values l … l + 15 of each run of 32
        const std::byte* ql = blocks + 64 * half + 16 * sixteen;
        const __m128i first = load16(ql);
        const __m128i second = load16(ql + 32);
        const __m128i high = load16(blocks + 128 + 32 * half + 16 * sixteen);
        const int8_t* scale = scales + 8 * half + sixteen;
        float* to = out + i + 128 * half + 16 * sixteen;
        const auto at = [&](int run) {
          return Vector::set(d * static_cast<float>(scale[2 * run]));
        };
        store_s8(six_bits<0>(low_nibbles(first), high), at(0), to);
        store_s8(six_bits<2>(low_nibbles(second), high), at(1), to + 32);
        store_s8(six_bits<4>(high_nibbles(first), high), at(2), to + 64);
        store_s8(six_bits<6>(high_nibbles(second), high), at(3), to + 96);
      }
    }
  }
}

DecodeFunction decoder(formats::TensorType type) {
  using formats::TensorType;
  switch (type) {
    case TensorType::kF32:
      return decode_f32;
    case TensorType::kF16:
      return decode_f16;
    case TensorType::kBF16:
      return decode_bf16;
    case TensorType::kQ4_0:
      return decode_q4_0;
    case TensorType::kQ4_1:
      return decode_q4_1;
    case TensorType::kQ8_0:
      return decode_q8_0;
    case TensorType::kQ4_K:
      return decode_q4_k;
    case TensorType::kQ6_K:
      return decode_q6_k;
    default:
      return nullptr;
  }
}

constexpr MicroKernels kMicroKernels = {
    .decoder = decoder,
    .dot_tile = dot_tile,
    .weighted_sum = weighted_sum,
    .softmax = softmax,
    .blend = blend,
    .rms_norm = rms_norm,
    .swiglu = swiglu,
    .from_half = from_half,
    .to_half = to_half,
};

}  // namespace
}  // namespace puna::kernels
