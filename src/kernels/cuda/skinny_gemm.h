// SPDX-License-Identifier: Apache-2.0
// Products of a few rows, where a step is over when the weights are read. The weights' first tiles
// are on their way before the kernel in front has finished: they don't depend on it. A result's
// products are added in the order of K, 16 at a time on tensor cores, whatever the number of rows.
#pragma once

#include <cstdint>

#include "base/numeric.h"
#include "kernels/cuda/stream.h"

namespace puna::kernels::cuda {

inline constexpr int32_t kSkinnyRows = 16;  // at most

struct SkinnyArgs {
  const BFloat16* x;       // [rows, columns]
  const BFloat16* weight;  // [outputs, columns]
  void* out;               // [pieces][rows, outputs]: f32 or bf16
  int32_t rows;
  int32_t outputs;
  int32_t columns;
  int32_t pieces;        // that the columns are cut into: each has its own results
  int64_t piece_stride;  // elements
  bool f32_out;
};
// The kernel's units: 16 outputs, 128 columns of a piece.
bool skinny_supports(int64_t outputs, int64_t columns, int32_t pieces);
void skinny_gemm(const SkinnyArgs& args, Stream stream);
// The weight is gate rows, then as many up rows: out[rows, outputs / 2] = silu(gate) * up in bf16,
// of results rounded to bf16 as skinny_gemm() would.
void skinny_gated_gemm(const SkinnyArgs& args, Stream stream);

}  // namespace puna::kernels::cuda
