// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/vector_avx512.inc"
// The vector's vocabulary comes first: the bodies are written over it.
#include "kernels/cpu/decode_body.inc"

namespace puna::kernels {

const MicroKernels& avx512_kernels() { return kMicroKernels; }

}  // namespace puna::kernels
