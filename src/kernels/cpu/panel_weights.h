// SPDX-License-Identifier: Apache-2.0
// Making panels out of a file's blocks, and reading single weights back.
//
//   pack_pair(kind, part, columns, pair, to);  // 32 rows of the weight from 32 * pair on
//   PanelColumn(kind, to, 3).value(k);
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "kernels/cpu/host_matrix.h"
#include "kernels/cpu/panel_kernels.h"

namespace puna::kernels {

// The kind that holds a tensor type losslessly, or none (F32, F16).
std::optional<PanelKind> panel_kind(formats::TensorType type);

constexpr int64_t pair_count(int64_t rows) { return (rows + kPairColumns - 1) / kPairColumns; }
int64_t pair_bytes(PanelKind kind, int64_t columns);

// Packs rows 32 * pair … of `part` into `to`: pair_bytes zeros, 64-byte aligned. Rows beyond the
// part's stay zero.
void pack_pair(PanelKind kind, const HostMatrix::Part& part, int64_t columns, int64_t pair,
               std::byte* to);

// One of a pair's 32 columns (a row of the weight), element by element.
class PanelColumn {
 public:
  PanelColumn(PanelKind kind, const std::byte* pair, int64_t column)
      : kind_(kind),
        traits_(panel_traits(kind)),
        pair_(pair),
        panel_(column / kPanelColumns),
        column_(column % kPanelColumns) {}
  int32_t quant(int64_t k) const;  // unsigned, as it is multiplied
  float scale(int64_t k) const;    // d * s
  float minimum(int64_t k) const;  // what is added: e, or -e * m; 0 without minima
  float value(int64_t k) const;    // scale * (quant - zero) + minimum; bf16: the value
  // All values, to the bits of quant::dequantize.
  void read(std::span<float> out) const;

 private:
  const std::byte* header(int64_t k) const;  // the panel's scales in the span
  const std::byte* unit(int64_t k) const;
  const PanelKind kind_;
  const PanelTraits traits_;
  const std::byte* pair_;
  const int64_t panel_;
  const int64_t column_;
};

}  // namespace puna::kernels
