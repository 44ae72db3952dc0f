// SPDX-License-Identifier: Apache-2.0
// Turns the bytes of one GGUF file into a GgufFile. Internal to formats; use GgufFile::open.
// Layout: header, key-value pairs, tensor infos, padding to the alignment, tensor data.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "formats/gguf.h"

namespace puna::formats {

// What a file may ask for. Each count is also held against the bytes that are left in the file.
inline constexpr uint64_t kMaxGgufKeyBytes = 65'535;
inline constexpr uint64_t kMaxGgufTensorNameBytes = 64;
inline constexpr uint32_t kMaxGgufDims = 4;
inline constexpr int kMaxGgufArrayDepth = 4;
inline constexpr uint64_t kMaxGgufArrayElements = 4'000'000;  // of all arrays of a file together
inline constexpr uint32_t kMaxGgufAlignment = 1U << 20;
inline constexpr uint64_t kMaxGgufShards = 1'000;

class GgufParser {
 public:
  GgufParser(std::span<const std::byte> data, const std::string& name) : data_(data), name_(name) {}

  Result<GgufFile> parse();

  // Opens every shard that the first one announces and joins their tensors into it.
  static Result<GgufFile> open_shards(const std::string& path);

 private:
  // Where a tensor's info says its bytes are, relative to the data section.
  struct Placement {
    uint64_t offset = 0;
    uint64_t bytes = 0;
    size_t tensor = 0;
  };

  Result<> read_header();
  Result<> read_metadata();
  Result<> read_alignment();
  Result<> read_tensor_infos();
  Result<> read_tensor_info();
  Result<TensorType> read_tensor_type(std::string_view tensor);
  Result<> place_tensors();
  Result<> check_overlap(std::vector<Placement> placements) const;

  Result<GgufValue> read_value(GgufValueType type, std::string_view key);
  Result<GgufScalar> read_scalar(GgufValueType type, std::string_view key);
  Result<GgufArray> read_array(std::string_view key, int depth);
  Result<GgufValueType> read_value_type(std::string_view key);
  template <typename T>
  Result<T> read_number(std::string_view what);
  Result<std::string_view> read_string(uint64_t max_bytes, std::string_view what);

  Error corrupt(std::string_view message) const;
  uint64_t bytes_left() const { return data_.size() - position_; }

  static Result<> join_shard(GgufFile& first, GgufFile shard, uint64_t index, uint64_t count);

  std::span<const std::byte> data_;
  std::string name_;
  uint64_t position_ = 0;
  uint64_t tensor_count_ = 0;
  uint64_t key_count_ = 0;
  uint64_t array_elements_ = 0;
  std::vector<Placement> placements_;
  GgufFile file_;
};

}  // namespace puna::formats
