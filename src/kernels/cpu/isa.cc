// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/isa.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <fmt/ranges.h>

#include <algorithm>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/reference.h"

namespace puna::kernels {

namespace {

#if defined(__x86_64__)
// clang 14's __builtin_cpu_supports does not know "f16c".
bool cpu_has_f16c() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}
#endif

}  // namespace

std::vector<std::string_view> available_isas() {
  std::vector<std::string_view> isas = {"reference"};
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && cpu_has_f16c()) {
    isas.push_back("avx2");
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
      isas.push_back("avx512");
    }
  }
#endif
  return isas;
}

Result<std::unique_ptr<Ops>> make_cpu_ops(std::string_view isa) {
  const std::vector<std::string_view> isas = available_isas();
  if (isa.empty()) isa = isas.back();
  if (isa != "reference" && isa != "avx2" && isa != "avx512") {
    return Error(ErrorCode::kInvalidArgument,
                 "unknown instruction set \"{}\": use reference, avx2 or avx512", isa);
  }
  if (std::find(isas.begin(), isas.end(), isa) == isas.end()) {
    return Error(ErrorCode::kUnsupported, "this CPU has no {}: it has {}", isa,
                 fmt::join(isas, ", "));
  }
#if defined(__x86_64__)
  if (isa == "avx2") return std::unique_ptr<Ops>(std::make_unique<CpuOps>("avx2", avx2_kernels()));
  if (isa == "avx512")
    return std::unique_ptr<Ops>(std::make_unique<CpuOps>("avx512", avx512_kernels()));
#endif
  return std::unique_ptr<Ops>(std::make_unique<ReferenceOps>());
}

}  // namespace puna::kernels
