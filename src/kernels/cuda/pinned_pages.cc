// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/pinned_pages.h"

#include <cuda_runtime.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace puna::kernels::cuda {
namespace {

Error no_memory(std::string_view what, uint64_t bytes, const char* why) {
  return Error(ErrorCode::kResourceExhausted, "no pinned memory for {}: {} bytes wanted ({})", what,
               bytes, why);
}

// Pages that are made resident by one call: meanwhile nothing else of the process can be mapped.
constexpr uint64_t kAtOnce = uint64_t{16} << 20;

void make_resident(std::byte* data, uint64_t bytes) {
#ifdef MADV_POPULATE_WRITE
  if (::madvise(data, bytes, MADV_POPULATE_WRITE) == 0) return;
#endif
  std::memset(data, 0, bytes);
}

}  // namespace

Result<PinnedPages> PinnedPages::take(uint64_t bytes, std::string_view what) {
  void* data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) return no_memory(what, bytes, std::strerror(errno));
  PinnedPages pages;
  pages.data_ = static_cast<std::byte*>(data);
  pages.bytes_ = bytes;
  pages.what_ = what;
  // Pages of 2 MB are taken, and pinned, in half the time. Only advice, so errors don't matter.
  ::madvise(data, bytes, MADV_HUGEPAGE);
  for (uint64_t done = 0; done < bytes; done += kAtOnce) {
    make_resident(pages.data_ + done, std::min(kAtOnce, bytes - done));
  }
  return pages;
}

Result<> PinnedPages::pin() {
  const cudaError_t status = cudaHostRegister(data_, bytes_, cudaHostRegisterDefault);
  if (status != cudaSuccess) {
    (void)cudaGetLastError();
    return no_memory(what_, bytes_, cudaGetErrorString(status));
  }
  pinned_ = true;
  return Ok{};
}

PinnedPages& PinnedPages::operator=(PinnedPages&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  std::swap(pinned_, other.pinned_);
  std::swap(what_, other.what_);
  return *this;
}

PinnedPages::~PinnedPages() {
  if (pinned_) (void)cudaHostUnregister(data_);
  if (data_ != nullptr) ::munmap(data_, bytes_);
}

}  // namespace puna::kernels::cuda
