// SPDX-License-Identifier: Apache-2.0
// Which instruction sets this CPU has, and the Ops for one of them.
//
//   ASSIGN_OR_RETURN(std::unique_ptr<Ops> ops, make_cpu_ops(""));  // the best of this CPU
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "kernels/cpu/cpu_options.h"
#include "kernels/ops.h"

namespace puna::kernels {

// From slowest to fastest: "scalar", then those that the CPU and the OS have of "avx2" (with FMA
// and F16C), "avx512" (F, BW, DQ, VL and VNNI) and "avx512_bf16", which on Intel's CPUs is for
// weights alone: attention is faster in f32 there.
std::vector<std::string_view> available_isas();

// `isa` is one of available_isas(), or "" for the last of them. Errors: kUnsupported for an
// instruction set that this CPU lacks, kInvalidArgument for a name that is none.
Result<std::unique_ptr<Ops>> make_cpu_ops(std::string_view isa, const CpuOptions& options = {});

}  // namespace puna::kernels
