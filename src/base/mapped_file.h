// SPDX-License-Identifier: Apache-2.0
// A file mapped read-only into memory. Pages are read when touched and shared through the page
// cache.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "base/result.h"

namespace puna {

class MappedFile {
 public:
  // Maps the whole file. Errors: kNotFound, kIo (not a regular file, no permission, mmap failed).
  static Result<MappedFile> open(const std::string& path);

  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  const std::string& path() const { return path_; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }
  size_t size() const { return size_; }

  // Tells the kernel that [offset, offset + length) is not needed any more (it stays readable).
  void drop_pages(size_t offset, size_t length) const;

 private:
  std::string path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace puna
