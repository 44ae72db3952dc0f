// SPDX-License-Identifier: Apache-2.0
// Products for few rows on Hopper, where reading the weight takes the time: thread blocks start
// while the kernel before still runs and read ahead as much of the weight as shared memory holds.
// They add up in the order of gemm.h's products, whose bits they have on the GPUs they were
// measured on; whether they have them is measured where they are used.
#pragma once

#include <cstdint>

#include "base/numeric.h"
#include "kernels/cuda/stream.h"

namespace puna::kernels::cuda {

inline constexpr int32_t kMostFewRows = 48;
// Raise it with a change that moves its speed: what was tuned and kept is tuned again.
inline constexpr int kFewRowsVersion = 1;

enum class FewRowsResult : uint8_t {
  kFloat16,
  kFloat,   // of each piece of the columns, gemm.h's
  kSwiglu,  // in f16: silu(first half of the outputs) * second half, each rounded to f16 before
};
struct FewRowsShape {
  int64_t outputs;  // rows of the weight
  int64_t columns;
  int32_t pieces = 1;
  FewRowsResult result = FewRowsResult::kFloat16;
};
// False on GPUs other than Hopper, and unless a piece's columns are a multiple of 64.
bool few_rows_gemm_supports(const FewRowsShape& shape);

struct FewRowsArgs {
  FewRowsShape shape;
  const Float16* x;       // [rows, columns]
  const Float16* weight;  // [outputs, columns]
  void* out;              // [pieces][rows, outputs], or [rows, outputs / 2]
  int32_t rows;           // at most kMostFewRows
  int64_t piece_stride;   // elements between the pieces' results
};
void few_rows_gemm(const FewRowsArgs& args, Stream stream);

}  // namespace puna::kernels::cuda
