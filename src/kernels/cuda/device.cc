// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/device.h"

#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <utility>

#include "base/check.h"

namespace puna::kernels::cuda {
namespace {

// "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build ..."
constexpr const char* kDriverFile = "/proc/driver/nvidia/version";

std::string driver_version() {
  std::ifstream file(kDriverFile);
  for (std::string word; file >> word;) {
    if (word.find_first_not_of("0123456789.") == std::string::npos &&
        word.find('.') != std::string::npos)
      return word;
  }
  int version = 0;
  (void)cudaDriverGetVersion(&version);
  return std::to_string(version);
}

}  // namespace

Result<DeviceFacts> device_facts(int32_t ordinal) {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) {
    return Error(ErrorCode::kUnavailable, "no CUDA GPU: {}; use --device cpu",
                 cudaGetErrorString(status));
  }
  if (ordinal < 0 || ordinal >= count) {
    return Error(ErrorCode::kUnavailable, "no GPU {}: this machine has {}", ordinal, count);
  }
  cudaDeviceProp properties;
  if (cudaGetDeviceProperties(&properties, ordinal) != cudaSuccess)
    return Error(ErrorCode::kUnavailable, "GPU {} does not answer", ordinal);
  DeviceFacts facts;
  facts.name = properties.name;
  facts.driver = driver_version();
  facts.major = properties.major;
  facts.minor = properties.minor;
  facts.multiprocessors = properties.multiProcessorCount;
  facts.total_bytes = properties.totalGlobalMem;
  return facts;
}

Result<DeviceFacts> open_device(int32_t ordinal) {
  ASSIGN_OR_RETURN(DeviceFacts facts, device_facts(ordinal));
  if (facts.major < kOldestMajor) {
    return Error(ErrorCode::kUnsupported, "{} has compute capability {}.{}; {}.0 is the oldest",
                 facts.name, facts.major, facts.minor, kOldestMajor);
  }
  size_t free = 0;
  size_t total = 0;
  cudaError_t status = cudaSetDevice(ordinal);
  if (status == cudaSuccess) status = cudaMemGetInfo(&free, &total);
  if (status != cudaSuccess) {
    return Error(ErrorCode::kUnavailable, "GPU {}: {}", ordinal, cudaGetErrorString(status));
  }
  facts.free_bytes = free;
  return facts;
}

void check_device(int status, const char* doing) {
  if (status == cudaSuccess) return;
  const auto error = static_cast<cudaError_t>(status);
  std::fprintf(stderr, "puna: fatal: the GPU failed in %s: %s (%s)\n", doing,
               cudaGetErrorString(error), cudaGetErrorName(error));
  std::fflush(stderr);
  std::_Exit(kDeviceLostExit);
}

void give_up_device(const char* doing, const char* why) {
  std::fprintf(stderr, "puna: fatal: the GPU failed in %s: %s\n", doing, why);
  std::fflush(stderr);
  std::_Exit(kDeviceLostExit);
}

Result<Arena> Arena::on_device(uint64_t bytes, std::string_view what) {
  size_t free = 0;
  size_t total = 0;
  Arena arena;
  void* data = nullptr;
  cudaError_t status = cudaMemGetInfo(&free, &total);
  if (status == cudaSuccess) status = cudaMalloc(&data, bytes);
  if (status == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();
    return Error(ErrorCode::kResourceExhausted,
                 "no GPU memory for {}: {} bytes wanted, {} of {} free", what, bytes, free, total);
  }
  if (status == cudaSuccess) {
    arena.data_ = static_cast<std::byte*>(data);
    arena.bytes_ = bytes;
    arena.on_device_ = true;
    status = cudaMemset(data, 0, bytes);
  }
  if (status != cudaSuccess)
    return Error(ErrorCode::kUnavailable, "GPU memory for {}: {}", what,
                 cudaGetErrorString(status));
  return arena;
}

Result<Arena> Arena::pinned(uint64_t bytes, std::string_view what) {
  Arena arena;
  void* data = nullptr;
  const cudaError_t status = cudaMallocHost(&data, bytes);
  if (status != cudaSuccess) {
    (void)cudaGetLastError();
    return Error(ErrorCode::kResourceExhausted, "no pinned memory for {}: {} bytes wanted ({})",
                 what, bytes, cudaGetErrorString(status));
  }
  std::memset(data, 0, bytes);
  arena.data_ = static_cast<std::byte*>(data);
  arena.bytes_ = bytes;
  return arena;
}

Arena& Arena::operator=(Arena&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  std::swap(used_, other.used_);
  std::swap(on_device_, other.on_device_);
  return *this;
}

Arena::~Arena() {
  if (data_ == nullptr) return;
  if (on_device_) {
    (void)cudaFree(data_);
  } else {
    (void)cudaFreeHost(data_);
  }
}

std::byte* Arena::take_bytes(uint64_t bytes) {
  CHECK_LE(used_ + aligned(bytes), bytes_);
  std::byte* piece = data_ + used_;
  used_ += aligned(bytes);
  return piece;
}

}  // namespace puna::kernels::cuda
