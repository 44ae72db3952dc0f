// SPDX-License-Identifier: Apache-2.0
// The GPU as the host sees it: which one there is, and memory taken once in arenas. No CUDA header
// is needed to include this. Any thread; an arena's owner alone uses it.
//
//   ASSIGN_OR_RETURN(const DeviceFacts facts, open_device(0));
//   ASSIGN_OR_RETURN(Arena arena, Arena::on_device(bytes, "weights and KV"));
//   auto* residual = arena.take<float>(rows * hidden);
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "kernels/cuda/stream.h"

namespace puna::kernels::cuda {

struct DeviceFacts {
  std::string name;
  std::string driver;  // "580.95.05", else the newest CUDA that it knows: "13000"
  int32_t major = 0;   // compute capability
  int32_t minor = 0;
  int32_t multiprocessors = 0;
  uint64_t total_bytes = 0;
  uint64_t free_bytes = 0;
};

inline constexpr int32_t kOldestMajor = 8;  // cp.async, and tensor cores as attention uses them

// Makes GPU `ordinal` the calling thread's. Errors: kUnavailable without a driver or that GPU,
// kUnsupported for one older than kOldestMajor.
Result<DeviceFacts> open_device(int32_t ordinal);
Result<DeviceFacts> device_facts(int32_t ordinal);

// One allocation, handed out from its start; freed with the object. It never grows.
class Arena {
 public:
  static constexpr uint64_t kAlign = 256;
  static uint64_t aligned(uint64_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

  // Zeroed. kResourceExhausted with the bytes that are free.
  static Result<Arena> on_device(uint64_t bytes, std::string_view what);
  static Result<Arena> pinned(uint64_t bytes, std::string_view what);

  Arena() = default;
  Arena(Arena&& other) noexcept { *this = std::move(other); }
  Arena& operator=(Arena&& other) noexcept;
  ~Arena();

  std::byte* take_bytes(uint64_t bytes);  // CHECKs that they are there
  template <typename T>
  T* take(int64_t count) {
    return reinterpret_cast<T*>(take_bytes(static_cast<uint64_t>(count) * sizeof(T)));
  }
  uint64_t bytes() const { return bytes_; }
  uint64_t used() const { return used_; }

 private:
  std::byte* data_ = nullptr;
  uint64_t bytes_ = 0;
  uint64_t used_ = 0;
  bool on_device_ = false;
};

}  // namespace puna::kernels::cuda
