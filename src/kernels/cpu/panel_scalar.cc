// SPDX-License-Identifier: Apache-2.0
// The panel products in plain loops: the reference of the vectorised tables, equal to the bit.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/numeric.h"
#include "kernels/cpu/panel_kernels.h"
#include "kernels/cpu/panel_weights.h"

namespace puna::kernels {
namespace {

void product(const PairProduct& job) {
  const PanelTraits traits = panel_traits(job.kind);
  const int64_t units = panel_units(job.kind);
  for (int64_t column = 0; column < kPairColumns; ++column) {
    const PanelColumn weights(job.kind, job.pair, column);
    for (int64_t i = 0; i < job.m; ++i) {
      const int8_t* values = job.x.values + i * job.x.stride;
      const auto* scales = reinterpret_cast<const float*>(
          reinterpret_cast<const char*>(job.x.scales) + i * job.x.stride);
      const char* corrections =
          reinterpret_cast<const char*>(job.x.corrections) + i * job.x.corrections_stride;
      float& c = job.c[i * job.c_stride + column];
      float sum = job.accumulate ? c : 0.0F;
      float wide = 0.0F;
      for (int64_t group = job.first_group; group < job.first_group + job.groups; ++group) {
        for (int64_t unit = 0; unit < units; ++unit) {
          const int64_t at = (group - job.first_group) * units + unit;
          const int64_t first = group * 32 + unit * 32 / units;
          int32_t dot = 0;
          float correction = 0.0F;
          std::memcpy(traits.minima ? static_cast<void*>(&correction) : &dot, corrections + at * 4,
                      4);
          for (int64_t k = first; k < first + 32 / units; ++k) dot += weights.quant(k) * values[k];
          const float scale = weights.scale(first);
          float& into = job.x.wide ? wide : sum;
          into =
              std::fma(static_cast<float>(dot), job.x.wide ? scale : scale * scales[group], into);
          if (traits.minima) into = std::fma(weights.minimum(first), correction, into);
        }
        if (job.x.wide && group % 4 == 3) {
          sum = std::fma(wide, scales[group], sum);
          wide = 0.0F;
        }
      }
      c = sum;
    }
  }
}

void correct(PanelKind kind, bool wide, const int32_t* sums, const float* scales, int64_t groups,
             int32_t* out) {
  const PanelTraits traits = panel_traits(kind);
  const int64_t units = panel_units(kind);
  for (int64_t i = 0; i < groups * units; ++i) {
    const int32_t sum = units == 2 ? sums[i] : sums[2 * i] + sums[2 * i + 1];
    if (traits.minima) {
      const float value = static_cast<float>(sum) * (wide ? 1.0F : scales[i / units]);
      std::memcpy(out + i, &value, sizeof value);
    } else {
      out[i] = -traits.zero * sum;
    }
  }
}

void quantize(const float* x, int64_t columns, int32_t group, int8_t* values, float* scales,
              int32_t* sums) {
  for (int64_t begin = 0; begin < columns; begin += group) {
    float most = 0.0F;
    for (int64_t i = begin; i < begin + group; ++i) most = std::max(most, std::fabs(x[i]));
    const float inverse = most > 0.0F ? 127.0F / most : 0.0F;
    for (int64_t i = begin; i < begin + group; i += 16) {
      scales[i / 32] = most / 127.0F;
      sums[i / 16] = 0;
      for (int64_t j = i; j < i + 16; ++j) {
        const float scaled = std::nearbyint(x[j] * inverse);
        // Not a number, and infinity over infinity, must be defined, not right.
        values[j] = std::fabs(scaled) <= 127.0F ? static_cast<int8_t>(scaled) : int8_t{0};
        sums[i / 16] += values[j];
      }
    }
  }
}

}  // namespace

const PanelKernels& scalar_panel_kernels() {
  static constexpr PanelKernels kKernels = {
      .quantize = quantize, .correct = correct, .product = product, .unpack_from_rows = 1 << 30};
  return kKernels;
}

}  // namespace puna::kernels
