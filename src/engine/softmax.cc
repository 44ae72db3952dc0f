// SPDX-License-Identifier: Apache-2.0
#include "engine/softmax.h"

#include "engine/softmax_body.inc"

namespace puna::engine {

const SoftmaxPasses& scalar_softmax_passes() { return kPasses; }

const SoftmaxPasses& softmax_passes(std::string_view isa) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx512 && (isa.empty() || isa.starts_with("avx512"))) return avx512_softmax_passes();
  if (__builtin_cpu_supports("avx2") && isa != "scalar") return avx2_softmax_passes();
#endif
  return scalar_softmax_passes();
}

}  // namespace puna::engine
