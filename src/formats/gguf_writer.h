// SPDX-License-Identifier: Apache-2.0
// Writes GGUF v3: metadata of every type, tensors streamed in pieces, one file or shards that
// GgufFile, gguf-py and llama.cpp read. Bytes go to PATH.partial; finish() syncs and renames, so a
// reader never sees half a file, and a writer that is destroyed unfinished leaves nothing. One
// thread at a time.
//
//   GgufWriter writer("model.gguf", {});
//   RETURN_IF_ERROR(writer.set("general.architecture", "llama"));
//   RETURN_IF_ERROR(writer.add_tensor("output_norm.weight", TensorType::kF32, {64}));
//   RETURN_IF_ERROR(writer.begin());
//   RETURN_IF_ERROR(writer.write(bytes));  // the tensors' bytes in the order of add_tensor
//   RETURN_IF_ERROR(writer.finish());
#pragma once

#include <cstddef>
#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/result.h"
#include "formats/gguf.h"
#include "formats/tensor_type.h"

namespace puna::formats {

class GgufWriter {
 public:
  struct Options {
    uint32_t alignment = 32;       // a power of two from 8 to 2^20
    uint64_t max_shard_bytes = 0;  // of tensor data per shard; 0: one file, whatever its size
  };

  // With shards, "model.gguf" becomes "model-00001-of-000NN.gguf" and so on.
  GgufWriter(std::string path, Options options);
  GgufWriter(const GgufWriter&) = delete;
  GgufWriter& operator=(const GgufWriter&) = delete;
  ~GgufWriter();

  // Errors: a key that is set already, or that the options give: general.alignment and split.*.
  // The C++ type chooses the type in the file: uint32_t -> kU32, std::string_view -> kString, ...
  template <typename T>
  requires std::is_arithmetic_v<T> Result<> set(std::string_view key, T value) {
    return set_pair(key, type_of<T>(), bytes_of(std::span<const T>(&value, 1)));
  }
  Result<> set(std::string_view key, std::string_view value);
  Result<> set(std::string_view key, const char* value) {
    return set(key, std::string_view(value));
  }
  // A value of another file, type and all.
  Result<> set(std::string_view key, const GgufValue& value);
  template <typename T>
  requires std::is_arithmetic_v<T> Result<> set_array(std::string_view key,
                                                      std::span<const T> values) {
    return set_pair(key, GgufValueType::kArray,
                    array_header(type_of<T>(), values.size()) + bytes_of(values));
  }
  Result<> set_array(std::string_view key, std::span<const std::string_view> values);

  // `dims` as in the file: dims[0] is contiguous.
  Result<> add_tensor(std::string_view name, TensorType type, std::vector<uint64_t> dims);

  // Writes the headers; no set or add_tensor after it.
  Result<> begin();
  // The next bytes of the tensors; pieces may have any size, also across tensors.
  Result<> write(std::span<const std::byte> bytes);
  // Refused while bytes are missing. After it the files stand under paths().
  Result<> finish();

  // The files written; known after begin().
  const std::vector<std::string>& paths() const { return paths_; }

 private:
  struct Tensor {
    std::string name;
    TensorType type = TensorType::kF32;
    std::vector<uint64_t> dims;
    uint64_t bytes = 0;
    uint64_t offset = 0;  // in its shard's data section
    size_t shard = 0;
  };

  template <typename T>
  static constexpr GgufValueType type_of();
  template <typename T>
  static std::string bytes_of(std::span<const T> values) {
    return {reinterpret_cast<const char*>(values.data()), values.size_bytes()};
  }
  static std::string array_header(GgufValueType element_type, uint64_t count);
  static std::string encoded(GgufValueType type, const GgufScalar& value);
  static std::string encoded(const GgufArray& array);

  Result<> set_pair(std::string_view key, GgufValueType type, const std::string& value);
  void assign_shards();
  std::string shard_path(size_t shard) const;
  std::string header(size_t shard) const;
  Result<> open_shard(size_t shard);
  Result<> close_shard();
  Result<> write_raw(std::span<const std::byte> bytes);
  Result<> pad_to_alignment();

  std::string path_;
  Options options_;
  std::set<std::string, std::less<>> keys_;
  std::set<std::string, std::less<>> names_;
  std::string pairs_;  // the encoded metadata
  std::vector<Tensor> tensors_;
  size_t shard_count_ = 1;
  bool began_ = false;
  std::vector<std::string> paths_;

  // The file being written, and where in the tensors the next byte goes.
  int fd_ = -1;
  size_t open_shard_ = 0;
  uint64_t position_ = 0;  // bytes written to the open file
  size_t next_tensor_ = 0;
  uint64_t tensor_bytes_written_ = 0;
  bool renamed_ = false;
};

template <typename T>
constexpr GgufValueType GgufWriter::type_of() {
  if constexpr (std::is_same_v<T, bool>) return GgufValueType::kBool;
  if constexpr (std::is_same_v<T, uint8_t>) return GgufValueType::kU8;
  if constexpr (std::is_same_v<T, int8_t>) return GgufValueType::kI8;
  if constexpr (std::is_same_v<T, uint16_t>) return GgufValueType::kU16;
  if constexpr (std::is_same_v<T, int16_t>) return GgufValueType::kI16;
  if constexpr (std::is_same_v<T, uint32_t>) return GgufValueType::kU32;
  if constexpr (std::is_same_v<T, int32_t>) return GgufValueType::kI32;
  if constexpr (std::is_same_v<T, uint64_t>) return GgufValueType::kU64;
  if constexpr (std::is_same_v<T, int64_t>) return GgufValueType::kI64;
  if constexpr (std::is_same_v<T, float>) return GgufValueType::kF32;
  return GgufValueType::kF64;
}

}  // namespace puna::formats
