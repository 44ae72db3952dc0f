// SPDX-License-Identifier: Apache-2.0
// GGUF v3 files, read (memory-mapped, sharded files too) and written.
// Source: ggml docs/gguf.md. Every count, offset and length of a file is checked against the file's
// size before it is used; errors name the file and the field.
//
//   ASSIGN_OR_RETURN(GgufFile file, GgufFile::open("model.gguf"));
//   auto layers = file.get_u64("llama.block_count");
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/mapped_file.h"
#include "base/result.h"
#include "formats/tensor_type.h"

namespace puna::formats {

// GGUF's metadata value types, by their ids in the file.
enum class GgufValueType : uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};

struct GgufArray;
// Integers are widened to 64 bits, floats to double; strings point into the mapped file.
using GgufScalar = std::variant<uint64_t, int64_t, double, bool, std::string_view>;

struct GgufArray {
  GgufValueType element_type = GgufValueType::kU8;
  std::vector<GgufScalar> values;  // for scalar element types
  std::vector<GgufArray> nested;   // for arrays of arrays
};

struct GgufValue {
  GgufValueType type = GgufValueType::kU8;
  std::variant<GgufScalar, GgufArray> value;
};

struct GgufTensor {
  std::string_view name;
  TensorType type = TensorType::kF32;
  std::vector<uint64_t> dims;  // dims[0] is contiguous, as in the file
  std::span<const std::byte> data;
  size_t shard = 0;  // which file holds it
};

class GgufFile {
 public:
  // Opens `path` and, when its metadata says split.count > 1, every other shard beside it.
  static Result<GgufFile> open(const std::string& path);
  // Parses one file's bytes; `data` must outlive the result. For fuzzing and tests.
  static Result<GgufFile> parse(std::span<const std::byte> data, const std::string& name);

  GgufFile() = default;
  GgufFile(GgufFile&&) noexcept = default;
  GgufFile& operator=(GgufFile&&) noexcept = default;

  const std::string& path() const { return path_; }
  uint32_t alignment() const { return alignment_; }
  uint64_t file_bytes() const { return file_bytes_; }  // all shards
  std::span<const MappedFile> shards() const { return shards_; }

  // Metadata of the first shard, sorted by key.
  const std::map<std::string_view, GgufValue>& metadata() const { return metadata_; }
  const GgufValue* find(std::string_view key) const;
  // The value when the key exists and has a fitting type (any integer type for integers).
  std::optional<uint64_t> get_u64(std::string_view key) const;
  std::optional<int64_t> get_i64(std::string_view key) const;
  std::optional<double> get_f64(std::string_view key) const;  // floats and integers
  std::optional<bool> get_bool(std::string_view key) const;
  std::optional<std::string_view> get_string(std::string_view key) const;
  const GgufArray* get_array(std::string_view key) const;
  // Frees the metadata's arrays: a tokenizer's tables, which take much more than in the file.
  void forget_arrays();

  // In file order, shard after shard.
  std::span<const GgufTensor> tensors() const { return tensors_; }
  const GgufTensor* find_tensor(std::string_view name) const;

 private:
  friend class GgufParser;
  std::string path_;
  uint32_t alignment_ = 32;
  uint64_t file_bytes_ = 0;
  std::vector<MappedFile> shards_;
  std::map<std::string_view, GgufValue> metadata_;
  std::vector<GgufTensor> tensors_;
  std::map<std::string_view, size_t> tensor_index_;
};

}  // namespace puna::formats
