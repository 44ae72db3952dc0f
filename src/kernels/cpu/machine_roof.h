// SPDX-License-Identifier: Apache-2.0
// What this machine can do at most, measured: the numbers that a benchmark is read against. On a
// shared machine they change from minute to minute, so measure just before and after the thing
// itself, with the same threads.
//
//   ASSIGN_OR_RETURN(std::unique_ptr<RoofMeter> meter, RoofMeter::create("avx512_bf16", 2));
//   const MachineRoof before = meter->measure();   // under a second
//   ...
//   const MachineRoof roof = higher(before, meter->measure());
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "base/result.h"
#include "kernels/cpu/roof_kernels.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/ops.h"

namespace puna::kernels {

// All threads together, unless said. Each is the median of slices of about ten milliseconds. The
// arithmetic is of one instruction set: 0 where it has no such instruction.
struct MachineRoof {
  double read_gb_per_s = 0;             // from memory, far beyond the caches
  double read_gb_per_s_one_thread = 0;  // of them, what one thread alone gets
  double int8_gop_per_s = 0;            // a multiply-add is two operations
  double bf16_gflop_per_s = 0;
  double f32_gflop_per_s = 0;
};

// The higher of each: what the machine showed it can do.
MachineRoof higher(const MachineRoof& a, const MachineRoof& b);

class RoofMeter {
 public:
  // `isa` is one of available_isas(). Errors: kResourceExhausted when there is no memory to read
  // from, or no threads.
  static Result<std::unique_ptr<RoofMeter>> create(std::string_view isa, int32_t threads);

  MachineRoof measure();   // about 0.8 s
  double read_gb_per_s();  // about 0.15 s

 private:
  RoofMeter(const RoofKernels& kernels, std::unique_ptr<ThreadPool> pool, Buffer memory)
      : kernels_(kernels), pool_(std::move(pool)), memory_(std::move(memory)) {}
  double read_gb_per_s_one_thread();
  double operations_per_s(const RoofKernels::Arithmetic& arithmetic);

  const RoofKernels& kernels_;
  const std::unique_ptr<ThreadPool> pool_;
  const Buffer memory_;
};

}  // namespace puna::kernels
