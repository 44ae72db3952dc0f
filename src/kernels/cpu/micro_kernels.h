// SPDX-License-Identifier: Apache-2.0
// The inner loops of CpuOps, one table per instruction set. Only these functions are compiled for a
// newer CPU than the rest of Puna; they take plain pointers, so that no inline function of a
// library is compiled for the wrong CPU. All f32 rows obey kRowAlign (kernels/ops.h): counts are
// padded, pads are zero.
#pragma once

#include <cstddef>
#include <cstdint>

#include "formats/tensor_type.h"

namespace puna::kernels {

// Writes elements 0 … count - 1 of `blocks`, exactly as quant::dequantize does.
using DecodeFunction = void (*)(const std::byte* blocks, int64_t count, float* out);

// c[i][j] (+)= sum over k of a[i][k] * w[j][k], for i < m, j < n, k < depth (a multiple of
// kRowAlign). Vector lane t adds the products of k = t mod width in rising k, then a fixed tree
// adds the lanes: the bits of c[i][j] don't depend on m, n or where the row stands.
struct DotTile {
  const float* a = nullptr;
  int64_t a_stride = 0;
  int64_t m = 0;
  const float* w = nullptr;
  int64_t w_stride = 0;
  int64_t n = 0;
  int64_t depth = 0;
  float* c = nullptr;
  int64_t c_stride = 0;
  bool accumulate = false;
};

// out[i][d] = sum over j < count of p[i][j] * v[j][d], in rising j, for i < m, d < columns
// (padded).
struct WeightedSum {
  const float* p = nullptr;
  int64_t p_stride = 0;
  int64_t m = 0;
  const float* v = nullptr;
  int64_t v_stride = 0;
  int64_t count = 0;
  int64_t columns = 0;
  float* out = nullptr;
  int64_t out_stride = 0;
};

// What a softmax over a chunk of positions leaves to combine with other chunks.
struct ChunkSoftmax {
  float max = 0.0F;
  float sum = 0.0F;
};

struct MicroKernels {
  // The vectorised decoder of a type, or null where there is none.
  DecodeFunction (*decoder)(formats::TensorType type) = nullptr;
  void (*dot_tile)(const DotTile& tile) = nullptr;
  void (*weighted_sum)(const WeightedSum& sum) = nullptr;
  // scores[j] = exp(scores[j] - max) for j < visible (>= 1), 0 for visible <= j < padded.
  ChunkSoftmax (*softmax)(float* scores, int64_t visible, int64_t padded) = nullptr;
  // out[i] = out[i] * keep + add[i] * take.
  void (*blend)(const float* add, int64_t padded, float keep, float take, float* out) = nullptr;
  // 1 / sqrt(mean(x^2) + eps), where the mean is over `columns` values.
  float (*rms_scale)(const float* x, int64_t columns, int64_t padded, float eps) = nullptr;
  // out[i] = x[i] * scale * weight[i].
  void (*scale_by)(const float* x, const float* weight, int64_t padded, float scale,
                   float* out) = nullptr;
  // Turns each pair (2i, 2i + 1) of whole heads by (cos, sin) = rotation[2i, 2i + 1].
  void (*rotate)(float* heads, int64_t columns, int64_t head_dim, const float* rotation) = nullptr;
  // out[i] = gate[i] / (1 + exp(-gate[i])) * up[i].
  void (*swiglu)(const float* gate, const float* up, int64_t padded, float* out) = nullptr;
  void (*from_half)(const uint16_t* half, int64_t count, float* out) = nullptr;
  // Rounds to nearest even; beyond the format's range the largest finite value, not infinity.
  void (*to_half)(const float* values, int64_t count, uint16_t* half) = nullptr;
};

const MicroKernels& avx2_kernels();
const MicroKernels& avx512_kernels();

}  // namespace puna::kernels
