// SPDX-License-Identifier: Apache-2.0
// What a user may choose about the CPU's arithmetic.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace puna::kernels {

class ThreadPool;

// How the rows that quantised weights are multiplied with are stored: f32 (the weights are then
// decoded, too; the reference), or int8 with a scale per 32 columns, or per 128 where a weight's
// shape allows it.
enum class ActivationMode : uint8_t { kFloat, kInt8, kInt8Wide };

// As flags and certificates spell it.
constexpr std::string_view name(ActivationMode mode) {
  if (mode == ActivationMode::kFloat) return "float";
  return mode == ActivationMode::kInt8 ? "int8" : "int8-wide";
}

struct CpuOptions {
  ActivationMode activations = ActivationMode::kInt8;
  ThreadPool* pool = nullptr;  // packs weights in parallel when given; must outlive the packing
  // Attention of "avx512_bf16" by bf16 dot products: where unset, as the CPU's vendor does them
  // well.
  std::optional<bool> bf16_attention = std::nullopt;
};

}  // namespace puna::kernels
