// SPDX-License-Identifier: Apache-2.0
// A failure of the GPU to commit on purpose, for tests. The environment variable PUNA_CUDA_FAULT
// names it and the step of the backend that it strikes in, or the call that copies KV blocks to or
// from the host, counted from 1, those at start included:
//   launch:STEP      the driver refuses a launch
//   lost:STEP        a kernel dies and takes the process's context along
//   stall:STEP       a kernel goes on for kFaultStall
//   copy:CALL        the driver refuses a copy
//   copy-stall:CALL  a copy begins after kFaultStall
// Engine thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <string_view>

#include "base/result.h"
#include "kernels/cuda/stream.h"

namespace puna::engine {

inline constexpr char kCudaFaultVariable[] = "PUNA_CUDA_FAULT";
inline constexpr std::chrono::seconds kFaultStall{5};

class CudaFault {
 public:
  CudaFault() = default;
  // kInvalidArgument for anything but the forms above; empty is no fault.
  static Result<CudaFault> parse(std::string_view text);
  // parse() of the environment variable.
  static Result<CudaFault> from_environment();

  // Begins a step on `stream`, with its failure when its turn has come. `launch` ends the process.
  void begin_step(kernels::cuda::Stream stream) {
    if (kind_ != Kind::kNone && !is_copys() && ++begun_ == strikes_in_) strike(stream);
  }
  // The same for copies of KV blocks; `copy` ends the process.
  void begin_copy(kernels::cuda::Stream stream) {
    if (is_copys() && ++begun_ == strikes_in_) strike(stream);
  }

 private:
  enum class Kind : uint8_t { kNone, kLaunch, kLost, kStall, kCopy, kCopyStall };
  bool is_copys() const { return kind_ == Kind::kCopy || kind_ == Kind::kCopyStall; }
  void strike(kernels::cuda::Stream stream) const;

  Kind kind_ = Kind::kNone;
  uint64_t strikes_in_ = 0;
  uint64_t begun_ = 0;
};

}  // namespace puna::engine
