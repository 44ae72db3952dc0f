// SPDX-License-Identifier: Apache-2.0
// The bytes of each quantised block, in file order. d, dmin, m are float16. Alignment 1: a block in
// a mapped file may start anywhere (x86 reads it in place; copy it where that matters). Source:
// ggml docs/gguf.md and the layouts of ggml-common.h.
#pragma once

#include <cstdint>

#include "base/numeric.h"

namespace puna::quant {

inline constexpr int kBlockElements = 32;        // Q4_0 ... Q8_0, IQ4_NL
inline constexpr int kSuperBlockElements = 256;  // the K types, IQ4_XS

#pragma pack(push, 1)

// Element i of 0-15 is the low nibble of qs[i], element i + 16 the high nibble.
struct BlockQ4_0 {  // d * (q - 8)
  Float16 d;
  uint8_t qs[16];
};

struct BlockQ4_1 {  // d * q + m
  Float16 d;
  Float16 m;
  uint8_t qs[16];
};

struct BlockQ5_0 {  // d * (q - 16); bit i of qh is bit 4 of element i
  Float16 d;
  uint8_t qh[4];
  uint8_t qs[16];
};

struct BlockQ5_1 {  // d * q + m
  Float16 d;
  Float16 m;
  uint8_t qh[4];
  uint8_t qs[16];
};

struct BlockQ8_0 {  // d * q
  Float16 d;
  int8_t qs[32];
};

// 16 groups of 16: scale in the low nibble of scales[g], minimum in the high one.
struct BlockQ2_K {  // d * scale * q - dmin * minimum
  uint8_t scales[16];
  uint8_t qs[64];  // per 128 elements 32 bytes, 2 bits per element, low bits first
  Float16 d;
  Float16 dmin;
};

struct BlockQ3_K {  // d * (scale - 32) * (q2 - (hmask bit ? 0 : 4))
  uint8_t hmask[32];
  uint8_t qs[64];
  uint8_t scales[12];  // 16 scales of 6 bits: 4 low bits in bytes 0-7, 2 high bits in bytes 8-11
  Float16 d;
};

// 8 groups of 32, each with a 6-bit scale and a 6-bit minimum (packed_scale_min below).
struct BlockQ4_K {  // d * scale * q - dmin * minimum
  Float16 d;
  Float16 dmin;
  uint8_t scales[12];
  uint8_t qs[128];  // per 64 elements 32 bytes: low nibbles first, then high nibbles
};

struct BlockQ5_K {
  Float16 d;
  Float16 dmin;
  uint8_t scales[12];
  uint8_t qh[32];  // bit g of qh[i] is bit 4 of element i of group g
  uint8_t qs[128];
};

struct BlockQ6_K {  // d * scale * (q - 32), 16 groups of 16
  uint8_t ql[128];
  uint8_t qh[64];
  int8_t scales[16];
  Float16 d;
};

struct BlockIQ4_NL {  // d * kIq4Values[q]
  Float16 d;
  uint8_t qs[16];
};

struct BlockIQ4_XS {  // d * (scale - 32) * kIq4Values[q], 8 groups of 32
  Float16 d;
  uint16_t scales_h;    // 2 high bits of each scale
  uint8_t scales_l[4];  // 4 low bits of each scale
  uint8_t qs[128];      // per group 16 bytes: elements 0-15 low nibbles, 16-31 high
};

#pragma pack(pop)

static_assert(sizeof(BlockQ4_0) == 18 && sizeof(BlockQ4_1) == 20 && sizeof(BlockQ5_0) == 22);
static_assert(sizeof(BlockQ5_1) == 24 && sizeof(BlockQ8_0) == 34 && sizeof(BlockQ2_K) == 84);
static_assert(sizeof(BlockQ3_K) == 110 && sizeof(BlockQ4_K) == 144 && sizeof(BlockQ5_K) == 176);
static_assert(sizeof(BlockQ6_K) == 210 && sizeof(BlockIQ4_NL) == 18 && sizeof(BlockIQ4_XS) == 136);
static_assert(alignof(BlockQ4_0) == 1 && alignof(BlockIQ4_XS) == 1);

// The 16 levels of IQ4_NL and IQ4_XS.
inline constexpr int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                          1,    13,   25,  38,  53,  69,  89,  113};

struct ScaleMin {
  uint8_t scale;
  uint8_t minimum;
};

// Group `group` (0-7) of the 12 bytes of Q4_K and Q5_K: six bits each.
constexpr ScaleMin packed_scale_min(const uint8_t (&scales)[12], int group) {
  if (group < 4) {
    return {static_cast<uint8_t>(scales[group] & 63), static_cast<uint8_t>(scales[group + 4] & 63)};
  }
  return {static_cast<uint8_t>((scales[group + 4] & 15) | ((scales[group - 4] >> 6) << 4)),
          static_cast<uint8_t>((scales[group + 4] >> 4) | ((scales[group] >> 6) << 4))};
}

// Group `group` (0-15) of the 12 bytes of Q3_K, from -32 to 31.
constexpr int packed_scale_q3(const uint8_t (&scales)[12], int group) {
  const int low = (scales[group % 8] >> (group < 8 ? 0 : 4)) & 15;
  const int high = (scales[8 + group % 4] >> (2 * (group / 4))) & 3;
  return (low | (high << 4)) - 32;
}

}  // namespace puna::quant
