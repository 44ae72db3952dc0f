// SPDX-License-Identifier: Apache-2.0
// The values that a ModelSpec may have. Internal to formats: Checkpoint::open applies it before any
// size is computed from a spec.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "formats/model_spec.h"

namespace puna::formats {

// Far above any published model, and low enough that products of two limits fit into 64 bits.
inline constexpr int32_t kMaxLayers = 1'024;
inline constexpr int32_t kMaxHiddenSize = 1 << 17;
inline constexpr int32_t kMaxIntermediateSize = 1 << 20;
inline constexpr int32_t kMaxHeads = 1'024;
inline constexpr int32_t kMaxHeadDim = 1'024;
inline constexpr int32_t kMaxVocabSize = 1 << 22;
inline constexpr int32_t kMaxPosition = 1 << 26;
inline constexpr float kMaxRmsNormEps = 0.1F;
inline constexpr double kMaxRopeTheta = 1e12;
inline constexpr float kMaxRopeDivisor = 1e6F;

// `where` names the file in messages.
Result<> check_spec(const ModelSpec& spec, const std::string& where);

}  // namespace puna::formats
