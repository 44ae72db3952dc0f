// SPDX-License-Identifier: Apache-2.0
// How fast this GPU reads its memory at most: the roof beside which a benchmark prints its numbers.
#pragma once

#include <cstdint>

namespace puna::kernels::cuda {

inline constexpr uint64_t kReadRoofBytes = uint64_t{2} << 30;

// GB/s, the best of a few passes over 2 GiB that each sum what they read. Takes that memory for the
// call.
double measure_read_gb_per_s();

}  // namespace puna::kernels::cuda
