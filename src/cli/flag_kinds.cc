// SPDX-License-Identifier: Apache-2.0
#include "cli/flag_kinds.h"

namespace puna::cli {

Result<> check_isa(const ModelFlags& flags) {
  for (const std::string_view known : {"", "scalar", "avx2", "avx512", "avx512_bf16"}) {
    if (flags.isa == known) return Ok{};
  }
  return Error(
      ErrorCode::kInvalidArgument,
      "--isa or PUNA_CPU: there is no instruction set \"{}\"; there are scalar, avx2, avx512 "
      "and avx512_bf16",
      flags.isa);
}

std::optional<int32_t> cuda_ordinal(std::string_view device) {
  constexpr std::string_view kCuda = "cuda";
  constexpr size_t kMostDigits = 2;
  if (device == kCuda) return 0;
  if (!device.starts_with(kCuda) || !device.substr(kCuda.size()).starts_with(':'))
    return std::nullopt;
  const std::string_view digits = device.substr(kCuda.size() + 1);
  if (digits.empty() || digits.size() > kMostDigits) return std::nullopt;
  int32_t ordinal = 0;
  for (const char digit : digits) {
    if (digit < '0' || digit > '9') return std::nullopt;
    ordinal = ordinal * 10 + (digit - '0');
  }
  return ordinal;
}

void add_device(CLI::App& app, ModelFlags& flags) {
  const auto check = [](const std::string& text) {
    const bool known = text == "cpu" || cuda_ordinal(text);
    return known ? std::string() : text + " is none of cpu, cuda and cuda:N";
  };
  app.add_option("--device", flags.device)->check(check);
  app.add_option("--tuning-cache", flags.tuning_cache);
}

Result<> check_gpu_flags(const ModelFlags& flags) {
  if (cuda_ordinal(flags.device)) return Ok{};
  if (!flags.tuning_cache.empty()) {
    return Error(ErrorCode::kInvalidArgument,
                 "--tuning-cache needs --device cuda: a CPU has nothing to tune");
  }
  if (flags.host_kv_memory.empty()) return Ok{};
  return Error(ErrorCode::kInvalidArgument,
               "--host-kv-memory needs --device cuda: on a CPU a paused request is computed again");
}

void add_kv_dtype(CLI::App& app, const std::string& name,
                  std::optional<kernels::KvType>& kv_dtype) {
  add_choice<std::optional<kernels::KvType>>(app, name, kv_dtype,
                                             {{"auto", std::nullopt},
                                              {"f32", kernels::KvType::kF32},
                                              {"bf16", kernels::KvType::kBF16},
                                              {"int8", kernels::KvType::kInt8}});
}

void add_compute_flags(CLI::App& app, ModelFlags& flags) {
  add_number<int32_t>(app, "--threads", flags.threads, 0, 1024);
  app.add_option("--isa", flags.isa)->envname("PUNA_CPU");  // see check_isa()
  add_choice<kernels::ActivationMode>(app, "--activations", flags.activations,
                                      {{"int8", kernels::ActivationMode::kInt8},
                                       {"int8-wide", kernels::ActivationMode::kInt8Wide},
                                       {"float", kernels::ActivationMode::kFloat}});
  add_kv_dtype(app, "--kv-dtype", flags.kv_dtype);
}

}  // namespace puna::cli
