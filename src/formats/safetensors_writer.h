// SPDX-License-Identifier: Apache-2.0
// Writes one safetensors file: names, types and shapes first, then the tensors' bytes in that
// order. A writer that is destroyed unfinished leaves no file. One thread at a time.
//
//   SafetensorsWriter writer("out/model.safetensors");
//   RETURN_IF_ERROR(writer.add_tensor("w", SafetensorsDtype::kI8, {2, 3}));
//   RETURN_IF_ERROR(writer.begin());
//   RETURN_IF_ERROR(writer.write(bytes));
//   RETURN_IF_ERROR(writer.finish());
#pragma once

#include <cstddef>
#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "formats/safetensors.h"

namespace puna::formats {

class SafetensorsWriter {
 public:
  explicit SafetensorsWriter(std::string path);
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;
  ~SafetensorsWriter();

  Result<> add_tensor(std::string_view name, SafetensorsDtype dtype,
                      const std::vector<uint64_t>& dims);
  // Writes the header; no add_tensor after it.
  Result<> begin();
  // The next bytes of the tensors, in pieces of any size.
  Result<> write(std::span<const std::byte> bytes);
  // Refused while bytes are missing.
  Result<> finish();

  uint64_t bytes() const { return total_; }  // of all tensors

 private:
  Result<> write_raw(std::span<const std::byte> bytes);

  const std::string path_;
  std::string entries_;  // of the header
  std::set<std::string, std::less<>> names_;
  uint64_t total_ = 0;
  uint64_t written_ = 0;
  int fd_ = -1;
  bool finished_ = false;
};

}  // namespace puna::formats
