// SPDX-License-Identifier: Apache-2.0
#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 warns inside its own _mm512_extractf64x4_pd.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include "kernels/cpu/vector_avx512.inc"
// The vector's vocabulary comes first: the bodies are written over it.
#include "kernels/cpu/decode_body.inc"

namespace puna::kernels {

const MicroKernels& avx512_kernels() { return kMicroKernels; }

}  // namespace puna::kernels
