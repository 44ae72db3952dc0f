// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/isa.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <fmt/ranges.h>

#include <algorithm>
#include <iterator>

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

// Leaf 7, sub-leaf 1, EAX bit 5. The OS's support comes with that of AVX-512.
bool cpu_has_avx512_bf16() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax & (1U << 5)) != 0;
}

// Sapphire Rapids does half as many multiply-adds a second in bf16 as in f32, Zen 4 twice as many
// (`puna bench engine --json`, "peak"). By vendor, not by a measurement, so that each start gives
// the same bits.
bool bf16_dots_are_slow() { return __builtin_cpu_is("intel") != 0; }
#endif

}  // namespace

std::vector<std::string_view> available_isas() {
  std::vector<std::string_view> isas = {"scalar"};
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !cpu_has_f16c())
    return isas;
  isas.push_back("avx2");
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl") ||
      !__builtin_cpu_supports("avx512vnni"))
    return isas;
  isas.push_back("avx512");
  if (cpu_has_avx512_bf16()) isas.push_back("avx512_bf16");
#endif
  return isas;
}

Result<std::unique_ptr<Ops>> make_cpu_ops(std::string_view isa, const CpuOptions& options) {
  const std::vector<std::string_view> isas = available_isas();
  if (isa.empty()) isa = isas.back();
  const std::string_view known[] = {"scalar", "avx2", "avx512", "avx512_bf16"};
  if (std::find(std::begin(known), std::end(known), isa) == std::end(known)) {
    return Error(ErrorCode::kInvalidArgument, "unknown instruction set \"{}\": use {}", isa,
                 fmt::join(known, ", "));
  }
  if (std::find(isas.begin(), isas.end(), isa) == isas.end()) {
    return Error(ErrorCode::kUnsupported, "this CPU has no {}: it has {}", isa,
                 fmt::join(isas, ", "));
  }
#if defined(__x86_64__)
  if (isa == "avx2") {
    return std::unique_ptr<Ops>(std::make_unique<CpuOps>(
        CpuKernels{"avx2", avx2_kernels(), avx2_panel_kernels(), avx2_attention_kernels()},
        options));
  }
  if (isa == "avx512") {
    return std::unique_ptr<Ops>(std::make_unique<CpuOps>(
        CpuKernels{"avx512", avx512_kernels(), avx512_panel_kernels(), avx512_attention_kernels()},
        options));
  }
  if (isa == "avx512_bf16") {
    const bool bf16_attention = options.bf16_attention.value_or(!bf16_dots_are_slow());
    return std::unique_ptr<Ops>(std::make_unique<CpuOps>(
        CpuKernels{"avx512_bf16", avx512_kernels(), avx512_bf16_panel_kernels(),
                   bf16_attention ? avx512_bf16_attention_kernels() : avx512_attention_kernels()},
        options));
  }
#endif
  return std::unique_ptr<Ops>(std::make_unique<ReferenceOps>(options));
}

}  // namespace puna::kernels
