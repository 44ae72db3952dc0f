// SPDX-License-Identifier: Apache-2.0
#include "engine/cuda_fault.h"

#include <charconv>
#include <cstdlib>

#include "kernels/cuda/faults.h"

namespace puna::engine {

namespace cuda = kernels::cuda;

Result<CudaFault> CudaFault::parse(std::string_view text) {
  CudaFault fault;
  if (text.empty()) return fault;
  const size_t colon = text.find(':');
  const std::string_view kind = text.substr(0, colon);
  if (kind == "launch") fault.kind_ = Kind::kLaunch;
  if (kind == "lost") fault.kind_ = Kind::kLost;
  if (kind == "stall") fault.kind_ = Kind::kStall;
  if (kind == "copy") fault.kind_ = Kind::kCopy;
  if (kind == "copy-stall") fault.kind_ = Kind::kCopyStall;
  const std::string_view step = colon == std::string_view::npos ? "" : text.substr(colon + 1);
  const char* end = step.data() + step.size();
  const auto parsed = std::from_chars(step.data(), end, fault.strikes_in_);
  if (fault.kind_ == Kind::kNone || parsed.ec != std::errc() || parsed.ptr != end ||
      fault.strikes_in_ == 0) {
    return Error(ErrorCode::kInvalidArgument,
                 "{}={} is none of launch:STEP, lost:STEP, stall:STEP, copy:CALL and "
                 "copy-stall:CALL, counted from 1",
                 kCudaFaultVariable, text);
  }
  return fault;
}

Result<CudaFault> CudaFault::from_environment() {
  const char* text = std::getenv(kCudaFaultVariable);
  return parse(text == nullptr ? "" : text);
}

void CudaFault::strike(cuda::Stream stream) const {
  switch (kind_) {
    case Kind::kNone:
      return;
    case Kind::kLaunch:
      cuda::check_device(cuda::launch_refused(stream), "a kernel's launch");
      return;
    case Kind::kLost:
      cuda::launch_trap(stream);
      return;
    case Kind::kCopy:
      cuda::check_device(cuda::copy_refused(stream), "copying KV blocks");
      return;
    case Kind::kStall:
    case Kind::kCopyStall:
      cuda::launch_stall(std::chrono::nanoseconds(kFaultStall).count(), stream);
      return;
  }
}

}  // namespace puna::engine
