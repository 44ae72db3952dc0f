// SPDX-License-Identifier: Apache-2.0
// Sizes that the tests of this folder share.
#pragma once

#include <cstdint>

namespace puna::plan {

inline constexpr uint64_t kMiB = 1 << 20;
inline constexpr uint64_t kGiB = 1 << 30;
inline constexpr int32_t kContext = 8192;

}  // namespace puna::plan
