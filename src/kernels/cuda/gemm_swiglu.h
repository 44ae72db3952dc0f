// SPDX-License-Identifier: Apache-2.0
// The product of gate and up with SwiGLU in its epilogue, for many rows on Hopper: out has the bits
// that the product in f16 (gemm.h) and swiglu() (row_kernels.h) give, without their results in
// between going through memory. Whether it has them is measured where it is used, as a library's
// algorithm is.
#pragma once

#include <cstdint>

#include "base/numeric.h"
#include "kernels/cuda/stream.h"

namespace puna::kernels::cuda {

struct SwigluGemmArgs {
  const Float16* x;       // [room, columns]
  const Float16* weight;  // [2 * inner, columns]: gate, then up
  Float16* out;           // [room, inner]
  int32_t rows;
  int32_t room;  // what is in rows from `rows` to there is not defined
  int64_t inner;
  int64_t columns;
};
// False on GPUs other than Hopper, and unless `inner` is a multiple of 128 and `columns` of 64.
bool swiglu_gemm_supports(int64_t inner, int64_t columns);
void swiglu_gemm(const SwigluGemmArgs& args, Stream stream);

}  // namespace puna::kernels::cuda
