// SPDX-License-Identifier: Apache-2.0
// Much pinned host memory in two steps. take() makes its pages resident, on any thread and beside
// everything; pin() tells the driver, and holds up every other call of CUDA meanwhile: for 4 GiB on
// an H200's host 0.4 to 0.7 s and 0.1 s. cudaMallocHost() takes 1.9 to 3.3 s for as much, and
// nothing else gets through in that time. For a little memory: Arena::pinned().
//
//   ASSIGN_OR_RETURN(PinnedPages pages, PinnedPages::take(bytes, "KV blocks"));
//   RETURN_IF_ERROR(pages.pin());
//   pages.data();
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "base/result.h"

namespace puna::kernels::cuda {

class PinnedPages {
 public:
  // Errors of both: kResourceExhausted with the bytes.
  static Result<PinnedPages> take(uint64_t bytes, std::string_view what);
  // For the GPU of the calling thread.
  Result<> pin();

  PinnedPages() = default;
  PinnedPages(PinnedPages&& other) noexcept { *this = std::move(other); }
  PinnedPages& operator=(PinnedPages&& other) noexcept;
  ~PinnedPages();

  std::byte* data() const { return data_; }
  uint64_t bytes() const { return bytes_; }

 private:
  std::byte* data_ = nullptr;
  uint64_t bytes_ = 0;
  bool pinned_ = false;
  std::string what_;
};

}  // namespace puna::kernels::cuda
