// SPDX-License-Identifier: Apache-2.0
#include "engine/softmax_body.inc"

namespace puna::engine {

const SoftmaxPasses& avx2_softmax_passes() { return kPasses; }

}  // namespace puna::engine
