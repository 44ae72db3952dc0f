// SPDX-License-Identifier: Apache-2.0
// How long the device takes for work that is repeated on a stream: what products are tuned by.
#pragma once

#include <cstddef>
#include <functional>

#include "kernels/cuda/stream.h"

namespace puna::kernels::cuda {

// Of one call of `enqueue(turn)`: the best round of a few.
float microseconds_of(Stream stream, const std::function<void(size_t turn)>& enqueue);

}  // namespace puna::kernels::cuda
