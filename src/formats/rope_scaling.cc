// SPDX-License-Identifier: Apache-2.0
#include "formats/rope_scaling.h"

#include <cmath>
#include <numbers>

namespace puna::formats {

std::vector<float> llama3_rope_divisors(const RopeScaling& scaling, double rope_theta,
                                        int32_t head_dim) {
  const double original = scaling.original_max_position;
  const double low = scaling.low_freq_factor;
  const double high = scaling.high_freq_factor;
  const double factor = scaling.factor;
  std::vector<float> divisors;
  for (int32_t i = 0; i < head_dim / 2; ++i) {
    const double frequency = std::pow(rope_theta, -2.0 * i / head_dim);
    const double wavelength = 2.0 * std::numbers::pi / frequency;
    double divisor = 1.0;
    if (wavelength > original / low) {
      divisor = factor;
    } else if (wavelength >= original / high) {
      const double keep = (original / wavelength - low) / (high - low);
      divisor = 1.0 / ((1.0 - keep) / factor + keep);
    }
    divisors.push_back(static_cast<float>(divisor));
  }
  return divisors;
}

}  // namespace puna::formats
