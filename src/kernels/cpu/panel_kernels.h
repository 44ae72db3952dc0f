// SPDX-License-Identifier: Apache-2.0
// Products of int8 or bf16 activation rows with packed weights, one function table per instruction
// set. Weights stand in panels of 16 columns of the result (= weight rows); a quad is four
// consecutive k of all 16 columns, 64 bytes, which is what one VPDPBUSD multiplies with four bytes
// of an activation row. Two panels stand side by side, as a pair, which is read in one pass from
// its first byte to its last.
//
// The arithmetic, the same to the bit in every table: per scale of the weight (32 or 16 columns of
// depth, in rising order) the integer dot product is exact, and
//   sum = fma(float(dot - zero * sum(a)), weight_scale * a_scale, sum)
// and, for types with a minimum, sum = fma(weight_minimum, a_scale * sum(a), sum). With activation
// scales for 128 columns the weight scales are applied first, and the row's scale to their sum.
#pragma once

#include <cstddef>
#include <cstdint>

namespace puna::kernels {

// The packed forms, named after the tensor type they hold losslessly.
enum class PanelKind : uint8_t {
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  kQ2_K,
  kQ3_K,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kIQ4_NL,
  kIQ4_XS,
  kBF16,
};

// How quants are stored: the low four bits in nibble planes, more bits in planes of their own.
enum class QuantBits : uint8_t { k2, k3, k4, k5, k6, k8, kIq4 };

// A pair is a run of spans in rising k; a span holds the scales of both panels, then per 32 columns
// of depth the quants, 64 bytes of one panel and 64 of the other in turn. Spans are whole cache
// lines.
struct PanelTraits {
  QuantBits bits = QuantBits::k4;
  int32_t span = 32;          // columns of depth per float16 scale d (and minimum e)
  int32_t unit = 32;          // columns per weight scale: span, or a smaller integer scale s
  bool minima = false;        // w = d * s * q - e * m (Q4_1, Q5_1: + e), else d * s * (q - zero)
  bool nibble_pairs = false;  // s and m share a byte
  int32_t zero = 0;

  constexpr int32_t quant_bytes() const {  // of 32 columns of depth: 512 weights
    switch (bits) {
      case QuantBits::k2:
        return 128;
      case QuantBits::k3:
        return 192;
      case QuantBits::k5:
        return 320;
      case QuantBits::k6:
        return 384;
      case QuantBits::k8:
        return 512;
      default:
        return 256;
    }
  }
  // A panel's scales in a span: d, e (16 halves each), then per unit 16 bytes of s and 16 of m.
  constexpr int32_t header_bytes() const { return minima ? 64 : 32; }
  constexpr int32_t unit_bytes() const {
    if (unit == span) return 0;
    return minima && !nibble_pairs ? 32 : 16;
  }
  constexpr int32_t scale_bytes() const { return header_bytes() + span / unit * unit_bytes(); }
  // Of both panels.
  constexpr int32_t span_bytes() const { return 2 * (scale_bytes() + span / 32 * quant_bytes()); }
  // Of both panels per 32 columns of depth, scales spread evenly.
  constexpr int32_t group_bytes() const { return span_bytes() * 32 / span; }
};

constexpr PanelTraits panel_traits(PanelKind kind) {
  switch (kind) {
    case PanelKind::kQ4_0:
      return {.bits = QuantBits::k4, .zero = 8};
    case PanelKind::kQ4_1:
      return {.bits = QuantBits::k4, .minima = true};
    case PanelKind::kQ5_0:
      return {.bits = QuantBits::k5, .zero = 16};
    case PanelKind::kQ5_1:
      return {.bits = QuantBits::k5, .minima = true};
    case PanelKind::kQ8_0:
      return {.bits = QuantBits::k8, .zero = 128};
    case PanelKind::kQ2_K:
      return {.bits = QuantBits::k2, .span = 256, .unit = 16, .minima = true, .nibble_pairs = true};
    case PanelKind::kQ3_K:
      return {.bits = QuantBits::k3, .span = 256, .unit = 16, .zero = 4};
    case PanelKind::kQ4_K:
      return {.bits = QuantBits::k4, .span = 256, .minima = true};
    case PanelKind::kQ5_K:
      return {.bits = QuantBits::k5, .span = 256, .minima = true};
    case PanelKind::kQ6_K:
      return {.bits = QuantBits::k6, .span = 256, .unit = 16, .zero = 32};
    case PanelKind::kIQ4_NL:
      return {.bits = QuantBits::kIq4, .zero = 128};
    case PanelKind::kIQ4_XS:
      return {.bits = QuantBits::kIq4, .span = 256, .zero = 128};
    case PanelKind::kBF16:
      break;
  }
  return {};
}

// Weight scales per group of 32 columns: 1 or 2.
constexpr int32_t panel_units(PanelKind kind) { return panel_traits(kind).unit == 16 ? 2 : 1; }

inline constexpr int32_t kPanelColumns = 16;
inline constexpr int32_t kPairColumns = 2 * kPanelColumns;  // products work on pairs of panels

// Rows of int8 activations, `stride` bytes apart, from one group of 32 columns on.
struct Int8Rows {
  const int8_t* values = nullptr;
  const float* scales = nullptr;         // one per 32 columns; equal in fours when they cover 128
  int64_t stride = 0;                    // of values and scales, in bytes
  const int32_t* corrections = nullptr;  // from correct(), for the groups of the product
  int64_t corrections_stride = 0;        // bytes
  bool wide = false;                     // scales cover 128 columns
};

// Two panels, unpacked: quads of unsigned bytes, scales as f32.
struct UnpackedPair {
  const uint8_t* quads = nullptr;  // [groups][2 panels][8 quads][64]
  const float* scales = nullptr;   // [groups * units][2 panels][16]
  const float* minima = nullptr;   // the same, or null
};

// c[i][j] (+)= rows[i] . panel column j, for i < m and the 32 columns of a pair.
struct PairProduct {
  PanelKind kind = PanelKind::kQ4_0;
  const std::byte* pair = nullptr;  // packed, whole
  UnpackedPair unpacked = {};       // instead of the pair when its quads are set
  const std::byte* next = nullptr;  // with unpacked weights: what to fetch into the cache meanwhile
  int64_t first_group = 0;          // of 32 columns; with unpacked weights these begin there too
  int64_t groups = 0;
  Int8Rows x = {};
  int64_t m = 0;
  float* c = nullptr;
  int64_t c_stride = 0;  // floats
  bool accumulate = false;
};

// The same with rows of bf16 and a pair of bf16 panels: [columns / 2][2 panels][16][2].
struct Bf16Product {
  const uint16_t* pair = nullptr;  // from the first column of depth on
  const uint16_t* x = nullptr;
  int64_t x_stride = 0;  // elements
  int64_t depth = 0;     // even
  int64_t m = 0;
  float* c = nullptr;
  int64_t c_stride = 0;
  bool accumulate = false;
};

struct PanelKernels {
  // Groups of `group` columns: scale = max |x| / 127, value = round(x / scale), and sums of 16.
  void (*quantize)(const float* x, int64_t columns, int32_t group, int8_t* values, float* scales,
                   int32_t* sums) = nullptr;
  // What a weight's zero or minimum makes of the sums of `groups` groups, one per unit:
  // int32 -zero * sum, or the bits of f32 a_scale * sum (float(sum) when scales cover 128 columns).
  void (*correct)(PanelKind kind, bool wide, const int32_t* sums, const float* scales,
                  int64_t groups, int32_t* out) = nullptr;
  // Straight from packed panels, or from unpacked ones.
  void (*product)(const PairProduct& product) = nullptr;
  // Unpacks groups [first_group, first_group + groups) of a panel pair (see UnpackedPair).
  void (*unpack)(PanelKind kind, const std::byte* pair, int64_t first_group, int64_t groups,
                 uint8_t* quads, float* scales, float* minima) = nullptr;
  // From so many rows on, unpacking once and multiplying many times is faster. At least 1.
  int32_t unpack_from_rows = 1;
  // Null where bf16 has no instructions: those matrices stay as they are.
  void (*bf16_product)(const Bf16Product& product) = nullptr;
  void (*to_bf16)(const float* x, int64_t count, uint16_t* out) = nullptr;
};

const PanelKernels& scalar_panel_kernels();
const PanelKernels& avx2_panel_kernels();
const PanelKernels& avx512_panel_kernels();       // with VNNI
const PanelKernels& avx512_bf16_panel_kernels();  // the same and bf16

}  // namespace puna::kernels
