// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/panel_weights.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/numeric.h"
#include "quant/block_types.h"

namespace puna::kernels {
namespace {

using formats::TensorType;

// A weight row taken apart: quants as they are multiplied, scales as PanelTraits describes them.
struct RowParts {
  RowParts(const PanelTraits& traits, int64_t columns)
      : q(static_cast<size_t>(columns)),
        d(static_cast<size_t>(columns / traits.span)),
        e(d.size()),
        s(static_cast<size_t>(columns / traits.unit)),
        m(s.size()) {}
  std::vector<uint8_t> q;
  std::vector<Float16> d;
  std::vector<Float16> e;
  std::vector<uint8_t> s;  // two's complement
  std::vector<uint8_t> m;
};

// Low nibbles are elements 0 … count - 1, high ones the next.
void split_nibbles(const uint8_t* qs, int count, uint8_t* q) {
  for (int i = 0; i < count; ++i) {
    q[i] = qs[i] & 15;
    q[i + count] = qs[i] >> 4;
  }
}

void add_fifth_bits(const uint8_t (&qh)[4], uint8_t* q) {
  uint32_t bits = 0;
  std::memcpy(&bits, qh, sizeof bits);
  for (int i = 0; i < 32; ++i) q[i] |= static_cast<uint8_t>(((bits >> i) & 1) << 4);
}

void take(const quant::BlockQ4_0& b, int64_t, uint8_t* q, RowParts&) { split_nibbles(b.qs, 16, q); }
void take(const quant::BlockIQ4_NL& b, int64_t, uint8_t* q, RowParts&) {
  split_nibbles(b.qs, 16, q);
}
void take(const quant::BlockQ4_1& b, int64_t block, uint8_t* q, RowParts& row) {
  split_nibbles(b.qs, 16, q);
  row.e[static_cast<size_t>(block)] = b.m;
}
void take(const quant::BlockQ5_0& b, int64_t, uint8_t* q, RowParts&) {
  split_nibbles(b.qs, 16, q);
  add_fifth_bits(b.qh, q);
}
void take(const quant::BlockQ5_1& b, int64_t block, uint8_t* q, RowParts& row) {
  split_nibbles(b.qs, 16, q);
  add_fifth_bits(b.qh, q);
  row.e[static_cast<size_t>(block)] = b.m;
}
void take(const quant::BlockQ8_0& b, int64_t, uint8_t* q, RowParts&) {
  for (int i = 0; i < 32; ++i) q[i] = static_cast<uint8_t>(b.qs[i] + 128);
}

void take(const quant::BlockQ2_K& b, int64_t block, uint8_t* q, RowParts& row) {
  for (int i = 0; i < 256; ++i) {
    q[i] = (b.qs[i / 128 * 32 + i % 32] >> (2 * (i % 128 / 32))) & 3;
  }
  row.e[static_cast<size_t>(block)] = b.dmin;
  std::memcpy(&row.s[static_cast<size_t>(block * 16)], b.scales, 16);  // nibble pairs, both
}
void take(const quant::BlockQ3_K& b, int64_t block, uint8_t* q, RowParts& row) {
  for (int i = 0; i < 256; ++i) {
    const int low = (b.qs[i / 128 * 32 + i % 32] >> (2 * (i % 128 / 32))) & 3;
    q[i] = static_cast<uint8_t>(low | (((b.hmask[i % 32] >> (i / 32)) & 1) << 2));
  }
  for (int group = 0; group < 16; ++group) {
    row.s[static_cast<size_t>(block * 16 + group)] =
        static_cast<uint8_t>(quant::packed_scale_q3(b.scales, group));
  }
}

void take_scale_minima(const uint8_t (&scales)[12], int64_t block, RowParts& row) {
  for (int group = 0; group < 8; ++group) {
    const quant::ScaleMin pair = quant::packed_scale_min(scales, group);
    row.s[static_cast<size_t>(block * 8 + group)] = pair.scale;
    row.m[static_cast<size_t>(block * 8 + group)] = pair.minimum;
  }
}
void take(const quant::BlockQ4_K& b, int64_t block, uint8_t* q, RowParts& row) {
  for (int i = 0; i < 4; ++i) split_nibbles(b.qs + 32 * i, 32, q + 64 * i);
  row.e[static_cast<size_t>(block)] = b.dmin;
  take_scale_minima(b.scales, block, row);
}
void take(const quant::BlockQ5_K& b, int64_t block, uint8_t* q, RowParts& row) {
  for (int i = 0; i < 4; ++i) split_nibbles(b.qs + 32 * i, 32, q + 64 * i);
  for (int i = 0; i < 256; ++i) {
    q[i] |= static_cast<uint8_t>(((b.qh[i % 32] >> (i / 32)) & 1) << 4);
  }
  row.e[static_cast<size_t>(block)] = b.dmin;
  take_scale_minima(b.scales, block, row);
}
void take(const quant::BlockQ6_K& b, int64_t block, uint8_t* q, RowParts& row) {
  for (int half = 0; half < 2; ++half) {
    for (int i = 0; i < 128; ++i) {
      const int run = i / 32;  // low nibbles of 64 bytes, then high nibbles of the same
      const uint8_t low = b.ql[64 * half + 32 * (run % 2) + i % 32];
      const int nibble = run < 2 ? low & 15 : low >> 4;
      const int two = (b.qh[32 * half + i % 32] >> (2 * run)) & 3;
      q[128 * half + i] = static_cast<uint8_t>(nibble | (two << 4));
    }
  }
  std::memcpy(&row.s[static_cast<size_t>(block * 16)], b.scales, 16);
}
void take(const quant::BlockIQ4_XS& b, int64_t block, uint8_t* q, RowParts& row) {
  for (int group = 0; group < 8; ++group) {
    split_nibbles(b.qs + 16 * group, 16, q + 32 * group);
    const int low = (b.scales_l[group / 2] >> (4 * (group % 2))) & 15;
    const int high = (b.scales_h >> (2 * group)) & 3;
    row.s[static_cast<size_t>(block * 8 + group)] = static_cast<uint8_t>((low | (high << 4)) - 32);
  }
}

template <typename Block>
void take_row(const std::byte* blocks, int64_t block_elements, RowParts& row) {
  const auto count = static_cast<int64_t>(row.q.size()) / block_elements;
  for (int64_t i = 0; i < count; ++i) {
    Block block;
    std::memcpy(&block, blocks + i * static_cast<int64_t>(sizeof block), sizeof block);
    row.d[static_cast<size_t>(i)] = block.d;
    take(block, i, row.q.data() + i * block_elements, row);
  }
}

void take_row(PanelKind kind, const std::byte* blocks, RowParts& row) {
  switch (kind) {
    case PanelKind::kQ4_0:
      return take_row<quant::BlockQ4_0>(blocks, 32, row);
    case PanelKind::kQ4_1:
      return take_row<quant::BlockQ4_1>(blocks, 32, row);
    case PanelKind::kQ5_0:
      return take_row<quant::BlockQ5_0>(blocks, 32, row);
    case PanelKind::kQ5_1:
      return take_row<quant::BlockQ5_1>(blocks, 32, row);
    case PanelKind::kQ8_0:
      return take_row<quant::BlockQ8_0>(blocks, 32, row);
    case PanelKind::kQ2_K:
      return take_row<quant::BlockQ2_K>(blocks, 256, row);
    case PanelKind::kQ3_K:
      return take_row<quant::BlockQ3_K>(blocks, 256, row);
    case PanelKind::kQ4_K:
      return take_row<quant::BlockQ4_K>(blocks, 256, row);
    case PanelKind::kQ5_K:
      return take_row<quant::BlockQ5_K>(blocks, 256, row);
    case PanelKind::kQ6_K:
      return take_row<quant::BlockQ6_K>(blocks, 256, row);
    case PanelKind::kIQ4_NL:
      return take_row<quant::BlockIQ4_NL>(blocks, 32, row);
    case PanelKind::kIQ4_XS:
      return take_row<quant::BlockIQ4_XS>(blocks, 256, row);
    case PanelKind::kBF16:
      return;
  }
}

// Adds bits to the four bytes that a column has in a quad or in a plane.
void merge(std::byte* bytes, uint32_t bits) {
  uint32_t word = 0;
  std::memcpy(&word, bytes, sizeof word);
  word |= bits;
  std::memcpy(bytes, &word, sizeof word);
}

// Bytes between a panel's planes: the two panels' planes alternate.
constexpr int64_t kPlane = 128;

// A panel's quants of the 32 columns of depth around k.
template <typename Byte>
Byte* group_quants(const PanelTraits& traits, Byte* pair, int64_t panel, int64_t k) {
  return pair + k / traits.span * traits.span_bytes() + 2 * traits.scale_bytes() +
         k % traits.span / 32 * 2 * traits.quant_bytes() + panel * 64;
}

// Four quants of a column; planes as panel_body.inc reads them.
void put_quad(QuantBits bits, std::byte* group, int quad, int64_t column, uint32_t q) {
  std::byte* at = group + 4 * column;
  constexpr uint32_t kOnes = 0x01010101;
  switch (bits) {
    case QuantBits::k8:
      return merge(at + kPlane * quad, q);
    case QuantBits::k3:
      merge(at + 2 * kPlane, ((q >> 2) & kOnes) << quad);
      [[fallthrough]];
    case QuantBits::k2:
      return merge(at + kPlane * (quad / 4), (q & (3 * kOnes)) << (2 * (quad % 4)));
    case QuantBits::k5:
      merge(at + 4 * kPlane, ((q >> 4) & kOnes) << quad);
      break;
    case QuantBits::k6:
      merge(at + (4 + quad / 4) * kPlane, ((q >> 4) & (3 * kOnes)) << (2 * (quad % 4)));
      break;
    case QuantBits::k4:
    case QuantBits::kIq4:
      break;
  }
  merge(at + kPlane * (quad / 2), (q & (15 * kOnes)) << (4 * (quad % 2)));
}

// `column` of a panel whose first header is `first`.
void put_scales(const PanelTraits& traits, const RowParts& row, int64_t column, std::byte* first) {
  const auto units = static_cast<size_t>(traits.span / traits.unit);
  for (size_t span = 0; span < row.d.size(); ++span) {
    std::byte* header = first + static_cast<int64_t>(span) * traits.span_bytes();
    std::memcpy(header + 2 * column, &row.d[span], 2);
    if (traits.minima) std::memcpy(header + 32 + 2 * column, &row.e[span], 2);
    if (traits.unit_bytes() == 0) continue;
    for (size_t unit = 0; unit < units; ++unit) {
      std::byte* to = header + traits.header_bytes() +
                      static_cast<int64_t>(unit) * traits.unit_bytes() + column;
      *to = static_cast<std::byte>(row.s[span * units + unit]);
      if (traits.unit_bytes() == 32) to[16] = static_cast<std::byte>(row.m[span * units + unit]);
    }
  }
}

void pack_bf16(const HostMatrix::Part& part, int64_t columns, int64_t row, int64_t column,
               std::byte* pair) {
  const std::byte* from = part.blocks(row, 0);
  for (int64_t k = 0; k < columns; ++k) {
    std::memcpy(pair + k / 2 * 128 + 4 * column + k % 2 * 2, from + 2 * k, 2);
  }
}

}  // namespace

std::optional<PanelKind> panel_kind(TensorType type) {
  switch (type) {
    case TensorType::kQ4_0:
      return PanelKind::kQ4_0;
    case TensorType::kQ4_1:
      return PanelKind::kQ4_1;
    case TensorType::kQ5_0:
      return PanelKind::kQ5_0;
    case TensorType::kQ5_1:
      return PanelKind::kQ5_1;
    case TensorType::kQ8_0:
      return PanelKind::kQ8_0;
    case TensorType::kQ2_K:
      return PanelKind::kQ2_K;
    case TensorType::kQ3_K:
      return PanelKind::kQ3_K;
    case TensorType::kQ4_K:
      return PanelKind::kQ4_K;
    case TensorType::kQ5_K:
      return PanelKind::kQ5_K;
    case TensorType::kQ6_K:
      return PanelKind::kQ6_K;
    case TensorType::kIQ4_NL:
      return PanelKind::kIQ4_NL;
    case TensorType::kIQ4_XS:
      return PanelKind::kIQ4_XS;
    case TensorType::kBF16:
      return PanelKind::kBF16;
    default:
      return std::nullopt;
  }
}

int64_t pair_bytes(PanelKind kind, int64_t columns) {
  if (kind == PanelKind::kBF16) return (columns + 31) / 32 * 32 * kPairColumns * 2;
  const PanelTraits traits = panel_traits(kind);
  return columns / traits.span * traits.span_bytes();
}

void pack_pair(PanelKind kind, const HostMatrix::Part& part, int64_t columns, int64_t pair,
               std::byte* to) {
  const int64_t first = pair * kPairColumns;
  const int64_t rows = std::min<int64_t>(kPairColumns, part.rows - first);
  if (kind == PanelKind::kBF16) {
    for (int64_t i = 0; i < rows; ++i) pack_bf16(part, columns, first + i, i, to);
    return;
  }
  const PanelTraits traits = panel_traits(kind);
  RowParts row(traits, columns);
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t panel = i / kPanelColumns;
    const int64_t column = i % kPanelColumns;
    take_row(kind, part.blocks(first + i, 0), row);
    put_scales(traits, row, column, to + panel * traits.scale_bytes());
    for (int64_t k = 0; k < columns; k += 4) {
      uint32_t four = 0;
      std::memcpy(&four, &row.q[static_cast<size_t>(k)], sizeof four);
      put_quad(traits.bits, group_quants(traits, to, panel, k), static_cast<int>(k % 32 / 4),
               column, four);
    }
  }
}

int32_t PanelColumn::quant(int64_t k) const {
  const std::byte* group = group_quants(traits_, pair_, panel_, k);
  const auto quad = static_cast<int>(k % 32 / 4);
  const auto at = [&](int64_t plane) {
    return static_cast<int>(group[kPlane * plane + 4 * column_ + k % 4]);
  };
  if (traits_.bits == QuantBits::k8) return at(quad);
  if (traits_.bits == QuantBits::k2 || traits_.bits == QuantBits::k3) {
    const int low = (at(quad / 4) >> (2 * (quad % 4))) & 3;
    return traits_.bits == QuantBits::k2 ? low : low | (((at(2) >> quad) & 1) << 2);
  }
  const int low = (at(quad / 2) >> (4 * (quad % 2))) & 15;
  switch (traits_.bits) {
    case QuantBits::k5:
      return low | (((at(4) >> quad) & 1) << 4);
    case QuantBits::k6:
      return low | (((at(4 + quad / 4) >> (2 * (quad % 4))) & 3) << 4);
    case QuantBits::kIq4:
      return quant::kIq4Values[low] + 128;
    default:
      return low;
  }
}

const std::byte* PanelColumn::header(int64_t k) const {
  return pair_ + k / traits_.span * traits_.span_bytes() + panel_ * traits_.scale_bytes();
}

const std::byte* PanelColumn::unit(int64_t k) const {
  return header(k) + traits_.header_bytes() +
         k % traits_.span / traits_.unit * traits_.unit_bytes() + column_;
}

namespace {

float load_half(const std::byte* from) {
  Float16 half;
  std::memcpy(&half, from, sizeof half);
  return to_float(half);
}

}  // namespace

float PanelColumn::scale(int64_t k) const {
  const float d = load_half(header(k) + 2 * column_);
  if (traits_.unit_bytes() == 0) return d;
  const auto s = static_cast<uint8_t>(*unit(k));
  return d * static_cast<float>(traits_.nibble_pairs ? s & 15 : static_cast<int8_t>(s));
}

float PanelColumn::minimum(int64_t k) const {
  if (!traits_.minima) return 0.0F;
  const float e = load_half(header(k) + 32 + 2 * column_);
  if (traits_.unit_bytes() == 0) return e;
  const std::byte* at = unit(k);
  const auto m = static_cast<uint8_t>(traits_.nibble_pairs ? at[0] >> 4 : at[16]);
  return -(e * static_cast<float>(m));
}

float PanelColumn::value(int64_t k) const {
  if (kind_ == PanelKind::kBF16) {
    BFloat16 bits;
    std::memcpy(&bits, pair_ + k / 2 * 128 + panel_ * 64 + 4 * column_ + k % 2 * 2, sizeof bits);
    return to_float(bits);
  }
  const float product = scale(k) * static_cast<float>(quant(k) - traits_.zero);
  return traits_.minima ? product + minimum(k) : product;
}

void PanelColumn::read(std::span<float> out) const {
  const auto columns = static_cast<int64_t>(out.size());
  if (kind_ == PanelKind::kBF16) {
    for (int64_t k = 0; k < columns; ++k) out[static_cast<size_t>(k)] = value(k);
    return;
  }
  constexpr int64_t kSameScale = 16;  // the shortest unit
  for (int64_t begin = 0; begin < columns; begin += kSameScale) {
    const float s = scale(begin);
    const float m = minimum(begin);
    for (int64_t k = begin; k < begin + kSameScale; ++k) {
      const float product = s * static_cast<float>(quant(k) - traits_.zero);
      out[static_cast<size_t>(k)] = traits_.minima ? product + m : product;
    }
  }
}

}  // namespace puna::kernels
