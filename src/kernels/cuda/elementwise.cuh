// SPDX-License-Identifier: Apache-2.0
// Arithmetic on pairs of bf16 that several kernels do: each rounding is spelled out where the
// compiler could fuse, so that all of them give the same bits.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

namespace puna::kernels::cuda {

__device__ inline float2 to_floats(uint32_t pair) {
  return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xFFFF0000U)};
}

__device__ inline uint32_t to_bf16_pair(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

__device__ inline uint32_t rotate_pair(uint32_t pair, float2 cos_sin) {
  const float2 x = to_floats(pair);
  return to_bf16_pair(__fmaf_rn(x.x, cos_sin.x, -__fmul_rn(x.y, cos_sin.y)),
                      __fmaf_rn(x.x, cos_sin.y, __fmul_rn(x.y, cos_sin.x)));
}

__device__ inline float silu_product(float gate, float up) {
  return __fmul_rn(__fdiv_rn(gate, __fadd_rn(1.0F, __expf(-gate))), up);
}

}  // namespace puna::kernels::cuda
