// SPDX-License-Identifier: Apache-2.0
// Llama 3's RoPE scaling as divisors of the rotation frequencies. Internal to formats.
// Source: "llama3" of transformers' modeling_rope_utils; llama.cpp stores the same divisors in
// GGUF.
#pragma once

#include <vector>

#include "formats/model_spec.h"

namespace puna::formats {

// head_dim / 2 divisors. Wavelengths below original_max_position / high_freq_factor keep their
// frequency, those above original_max_position / low_freq_factor are divided by `factor`, and those
// between are blended.
std::vector<float> llama3_rope_divisors(const RopeScaling& scaling, double rope_theta,
                                        int32_t head_dim);

}  // namespace puna::formats
