// SPDX-License-Identifier: Apache-2.0
// GgufFile's accessors, and how the shards of one model become one GgufFile.
#include "formats/gguf.h"

#include <fmt/core.h>

#include <utility>

#include "formats/gguf_parser.h"
#include "formats/message_text.h"

namespace puna::formats {
namespace {

// The path of shard `index` (from 0) when `path` is "NAME-00001-of-000NN.gguf", else empty.
std::string shard_path(const std::string& path, uint64_t index, uint64_t count) {
  const std::string first = fmt::format("-{:05}-of-{:05}.gguf", 1, count);
  if (!path.ends_with(first)) return {};
  return fmt::format("{}-{:05}-of-{:05}.gguf", path.substr(0, path.size() - first.size()),
                     index + 1, count);
}

template <typename T>
const T* scalar_as(const GgufValue* value) {
  if (value == nullptr) return nullptr;
  const auto* scalar = std::get_if<GgufScalar>(&value->value);
  return scalar == nullptr ? nullptr : std::get_if<T>(scalar);
}

}  // namespace

Result<GgufFile> GgufFile::open(const std::string& path) { return GgufParser::open_shards(path); }

Result<GgufFile> GgufFile::parse(std::span<const std::byte> data, const std::string& name) {
  return GgufParser(data, name).parse();
}

const GgufValue* GgufFile::find(std::string_view key) const {
  const auto found = metadata_.find(key);
  return found == metadata_.end() ? nullptr : &found->second;
}

std::optional<uint64_t> GgufFile::get_u64(std::string_view key) const {
  const GgufValue* value = find(key);
  if (const auto* number = scalar_as<uint64_t>(value)) return *number;
  const auto* number = scalar_as<int64_t>(value);
  if (number == nullptr || *number < 0) return std::nullopt;
  return static_cast<uint64_t>(*number);
}

std::optional<int64_t> GgufFile::get_i64(std::string_view key) const {
  const GgufValue* value = find(key);
  if (const auto* number = scalar_as<int64_t>(value)) return *number;
  const auto* number = scalar_as<uint64_t>(value);
  if (number == nullptr || *number > INT64_MAX) return std::nullopt;
  return static_cast<int64_t>(*number);
}

std::optional<double> GgufFile::get_f64(std::string_view key) const {
  const GgufValue* value = find(key);
  if (const auto* number = scalar_as<double>(value)) return *number;
  if (const auto* number = scalar_as<int64_t>(value)) return static_cast<double>(*number);
  if (const auto* number = scalar_as<uint64_t>(value)) return static_cast<double>(*number);
  return std::nullopt;
}

std::optional<bool> GgufFile::get_bool(std::string_view key) const {
  const auto* flag = scalar_as<bool>(find(key));
  return flag == nullptr ? std::nullopt : std::optional<bool>(*flag);
}

std::optional<std::string_view> GgufFile::get_string(std::string_view key) const {
  const auto* text = scalar_as<std::string_view>(find(key));
  return text == nullptr ? std::nullopt : std::optional<std::string_view>(*text);
}

const GgufArray* GgufFile::get_array(std::string_view key) const {
  const GgufValue* value = find(key);
  return value == nullptr ? nullptr : std::get_if<GgufArray>(&value->value);
}

void GgufFile::forget_arrays() {
  std::erase_if(metadata_, [](const auto& entry) {
    return std::holds_alternative<GgufArray>(entry.second.value);
  });
}

const GgufTensor* GgufFile::find_tensor(std::string_view name) const {
  const auto found = tensor_index_.find(name);
  return found == tensor_index_.end() ? nullptr : &tensors_[found->second];
}

Result<GgufFile> GgufParser::open_shards(const std::string& path) {
  ASSIGN_OR_RETURN(MappedFile mapped, MappedFile::open(path));
  ASSIGN_OR_RETURN(GgufFile first, GgufFile::parse(mapped.bytes(), path));
  first.shards_.push_back(std::move(mapped));
  const uint64_t count = first.get_u64("split.count").value_or(1);
  const uint64_t index = first.get_u64("split.no").value_or(0);
  if (count <= 1) return first;
  if (count > kMaxGgufShards) {
    return Error(ErrorCode::kUnsupported, "{}: split.count is {}, the limit is {}", path, count,
                 kMaxGgufShards);
  }
  if (index != 0) {
    return Error(ErrorCode::kInvalidArgument,
                 "{}: this is shard {} of {}; open the first one (-00001-of-{:05}.gguf)", path,
                 index + 1, count, count);
  }
  for (uint64_t i = 1; i < count; ++i) {
    const std::string next_path = shard_path(path, i, count);
    if (next_path.empty()) {
      return Error(ErrorCode::kInvalidArgument,
                   "{}: it has {} shards, so its name must end in -00001-of-{:05}.gguf", path,
                   count, count);
    }
    ASSIGN_OR_RETURN(MappedFile next, MappedFile::open(next_path));
    ASSIGN_OR_RETURN(GgufFile shard, GgufFile::parse(next.bytes(), next_path));
    first.shards_.push_back(std::move(next));
    RETURN_IF_ERROR(join_shard(first, std::move(shard), i, count));
  }
  const auto total = first.get_u64("split.tensors.count");
  if (total && *total != first.tensors_.size()) {
    return Error(ErrorCode::kCorrupt,
                 "{}: its {} shards hold {} tensors, split.tensors.count says {}", path, count,
                 first.tensors_.size(), *total);
  }
  return first;
}

Result<> GgufParser::join_shard(GgufFile& first, GgufFile shard, uint64_t index, uint64_t count) {
  if (shard.get_u64("split.no") != index || shard.get_u64("split.count") != count) {
    return Error(ErrorCode::kCorrupt, "{}: its split.no and split.count should be {} and {}",
                 shard.path_, index, count);
  }
  first.file_bytes_ += shard.file_bytes_;
  for (GgufTensor& tensor : shard.tensors_) {
    tensor.shard = index;
    if (!first.tensor_index_.emplace(tensor.name, first.tensors_.size()).second) {
      return Error(ErrorCode::kCorrupt, "{}: tensor {} is in an earlier shard too", shard.path_,
                   in_quotes(tensor.name));
    }
    first.tensors_.push_back(std::move(tensor));
  }
  return Ok{};
}

}  // namespace puna::formats
