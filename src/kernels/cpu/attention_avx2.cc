// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/attention_avx2.inc"
// The vocabulary comes first: the body is written over it.
#include "kernels/cpu/attention_body.inc"

namespace puna::kernels {

const AttentionKernels& avx2_attention_kernels() {
  static constexpr AttentionKernels kKernels = attention_kernels<WideElement>();
  return kKernels;
}

}  // namespace puna::kernels
