// SPDX-License-Identifier: Apache-2.0
// Arithmetic on pairs of f16 that several kernels do: each rounding is spelled out where the
// compiler could fuse, so that all of them give the same bits.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

namespace puna::kernels::cuda {

__device__ inline float2 to_floats(uint32_t pair) {
  return __half22float2(*reinterpret_cast<const __half2*>(&pair));
}

__device__ inline uint32_t to_half_pair(float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

__device__ inline uint32_t rotate_pair(uint32_t pair, float2 cos_sin) {
  const float2 x = to_floats(pair);
  return to_half_pair(__fmaf_rn(x.x, cos_sin.x, -__fmul_rn(x.y, cos_sin.y)),
                      __fmaf_rn(x.x, cos_sin.y, __fmul_rn(x.y, cos_sin.x)));
}

// Beyond f16's largest number that number: a few of these products are thousands of times the
// others in real models.
__device__ inline uint32_t to_limited_half_pair(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.satfinite.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

__device__ inline float silu_product(float gate, float up) {
  return __fmul_rn(__fdividef(gate, __fadd_rn(1.0F, __expf(-gate))), up);
}

}  // namespace puna::kernels::cuda
