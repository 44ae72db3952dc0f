// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/attention_avx512.inc"
// The vocabulary comes first: the body is written over it.
#include "kernels/cpu/attention_body.inc"

namespace puna::kernels {

const AttentionKernels& avx512_attention_kernels() {
  static constexpr AttentionKernels kKernels = attention_kernels<WideElement>();
  return kKernels;
}

}  // namespace puna::kernels
