// SPDX-License-Identifier: Apache-2.0
// Safetensors files, memory-mapped, and the folders that hold a model in one or several of them.
// Layout of a file: u64 length of the header, the header (JSON: name -> dtype, shape,
// data_offsets), then the data, which the tensors cover without gaps or overlaps. Tensor bytes may
// be unaligned.
//
//   ASSIGN_OR_RETURN(SafetensorsFolder folder, SafetensorsFolder::open("Llama-3.2-1B"));
//   const SafetensorsTensor* norm = folder.find("model.norm.weight");
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/mapped_file.h"
#include "base/result.h"
#include "formats/tensor_type.h"

namespace puna::formats {

// What is read; integers and fp8 are parts of quantised weights (formats/quantized_folder.h).
enum class SafetensorsDtype : uint8_t { kF32, kF16, kBF16, kI8, kU8, kI32, kI64, kF8E4M3 };

// "F8_E4M3", as in the file.
std::string_view safetensors_dtype_name(SafetensorsDtype dtype);
uint64_t safetensors_dtype_bytes(SafetensorsDtype dtype);
// The tensor type of plain floats, else nothing.
std::optional<TensorType> float_type(SafetensorsDtype dtype);

struct SafetensorsTensor {
  std::string name;
  SafetensorsDtype dtype = SafetensorsDtype::kF32;
  std::vector<uint64_t> dims;  // rows before columns; empty for a scalar
  std::span<const std::byte> data;
};

class SafetensorsFile {
 public:
  static Result<SafetensorsFile> open(const std::string& path);
  // Parses one file's bytes; `data` must outlive the result. For fuzzing and tests.
  static Result<SafetensorsFile> parse(std::span<const std::byte> data, const std::string& name);

  const MappedFile& mapped() const { return mapped_; }
  // In the order of their data.
  std::span<const SafetensorsTensor> tensors() const { return tensors_; }
  const SafetensorsTensor* find(std::string_view name) const;

 private:
  friend class SafetensorsParser;
  MappedFile mapped_;
  std::vector<SafetensorsTensor> tensors_;
  std::map<std::string, size_t, std::less<>> index_;
};

// model.safetensors, or the files that model.safetensors.index.json names.
class SafetensorsFolder {
 public:
  static Result<SafetensorsFolder> open(const std::string& folder);

  std::span<const SafetensorsFile> files() const { return files_; }
  const SafetensorsTensor* find(std::string_view name) const;
  // Every tensor of the model, by name.
  const std::map<std::string, const SafetensorsTensor*, std::less<>>& tensors() const {
    return tensors_;
  }

 private:
  static Result<SafetensorsFolder> open_index(const std::string& folder);

  std::vector<SafetensorsFile> files_;
  std::map<std::string, const SafetensorsTensor*, std::less<>> tensors_;
};

}  // namespace puna::formats
