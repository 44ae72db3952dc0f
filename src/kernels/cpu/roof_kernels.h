// SPDX-License-Identifier: Apache-2.0
// Loops that do nothing but keep one kind of unit busy: what a core can do at most with an
// instruction set. machine_roof.h times them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace puna::kernels {

struct RoofKernels {
  // `rounds` rounds of multiply-adds on registers, in enough independent chains to hide their
  // latency; the result keeps them from being optimised away.
  struct Arithmetic {
    double (*run)(int64_t rounds) = nullptr;  // null: the instruction set has none
    double operations = 0;                    // of a round; a multiply-add is two
  };
  Arithmetic int8;  // 8-bit products, 32-bit sums (AVX2: 16-bit)
  Arithmetic bf16;  // bf16 products, f32 sums
  Arithmetic f32;
  // Reads every byte once. `data` is aligned to 64 bytes, `bytes` a multiple of 512.
  uint64_t (*read)(const std::byte* data, int64_t bytes) = nullptr;
};

// `isa` is one of available_isas().
const RoofKernels& roof_kernels(std::string_view isa);

// In translation units of their own, compiled for their instruction set.
const RoofKernels& avx2_roof_kernels();
const RoofKernels& avx512_roof_kernels();
const RoofKernels& avx512_bf16_roof_kernels();

}  // namespace puna::kernels
