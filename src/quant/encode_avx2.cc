// SPDX-License-Identifier: Apache-2.0
#include "quant/decode_halves.inc"
#include "quant/encode_body.inc"
#include "quant/quadratic_forms.inc"

namespace puna::quant {

void encode_blocks_avx2(formats::TensorType type, const float* values, const float* importance,
                        size_t count, std::byte* blocks) {
  encode_searched(type, values, importance, count, blocks);
}

float fit_group_avx2(const float* x, const float* importance, size_t count) {
  return fit_group_searched(x, importance, count);
}

void decode_halves_avx2(const std::byte* halves, size_t count, float* out) {
  decode_halves_in_lanes(halves, count, out);
}

void quadratic_forms_avx2(const float* h, size_t stride, size_t n, const float* vectors,
                          double* forms) {
  quadratic_forms_in_lanes(h, stride, n, vectors, forms);
}

}  // namespace puna::quant
