// SPDX-License-Identifier: Apache-2.0
#include "formats/gguf_writer.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/checked_math.h"
#include "formats/gguf_parser.h"
#include "formats/message_text.h"

namespace puna::formats {
namespace {

constexpr uint32_t kVersion = 3;
constexpr std::string_view kPartial = ".partial";

template <typename T>
std::string raw(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof(T)};
}

std::string raw_string(std::string_view text) {
  return raw<uint64_t>(text.size()) + std::string(text);
}

std::string raw_pair(std::string_view key, GgufValueType type, std::string_view value) {
  return raw_string(key) + raw(static_cast<uint32_t>(type)) + std::string(value);
}

}  // namespace

GgufWriter::GgufWriter(std::string path, Options options)
    : path_(std::move(path)), options_(options) {
  CHECK(options_.alignment >= 8 && options_.alignment <= kMaxGgufAlignment);
  CHECK(std::has_single_bit(options_.alignment));
}

GgufWriter::~GgufWriter() {
  if (fd_ >= 0) ::close(fd_);
  if (renamed_) return;
  for (const std::string& path : paths_) ::unlink((path + std::string(kPartial)).c_str());
}

std::string GgufWriter::array_header(GgufValueType element_type, uint64_t count) {
  return raw(static_cast<uint32_t>(element_type)) + raw(count);
}

std::string GgufWriter::encoded(GgufValueType type, const GgufScalar& value) {
  switch (type) {
    case GgufValueType::kU8:
      return raw(static_cast<uint8_t>(std::get<uint64_t>(value)));
    case GgufValueType::kU16:
      return raw(static_cast<uint16_t>(std::get<uint64_t>(value)));
    case GgufValueType::kU32:
      return raw(static_cast<uint32_t>(std::get<uint64_t>(value)));
    case GgufValueType::kU64:
      return raw(std::get<uint64_t>(value));
    case GgufValueType::kI8:
      return raw(static_cast<int8_t>(std::get<int64_t>(value)));
    case GgufValueType::kI16:
      return raw(static_cast<int16_t>(std::get<int64_t>(value)));
    case GgufValueType::kI32:
      return raw(static_cast<int32_t>(std::get<int64_t>(value)));
    case GgufValueType::kI64:
      return raw(std::get<int64_t>(value));
    case GgufValueType::kF32:
      return raw(static_cast<float>(std::get<double>(value)));
    case GgufValueType::kF64:
      return raw(std::get<double>(value));
    case GgufValueType::kBool:
      return raw(static_cast<uint8_t>(std::get<bool>(value)));
    case GgufValueType::kString:
      return raw_string(std::get<std::string_view>(value));
    case GgufValueType::kArray:
      break;
  }
  CHECK(type != GgufValueType::kArray);  // a GgufScalar is no array
  return {};
}

std::string GgufWriter::encoded(const GgufArray& array) {
  if (array.element_type == GgufValueType::kArray) {
    std::string out = array_header(array.element_type, array.nested.size());
    for (const GgufArray& nested : array.nested) out += encoded(nested);
    return out;
  }
  std::string out = array_header(array.element_type, array.values.size());
  for (const GgufScalar& value : array.values) out += encoded(array.element_type, value);
  return out;
}

Result<> GgufWriter::set(std::string_view key, std::string_view value) {
  return set_pair(key, GgufValueType::kString, raw_string(value));
}

Result<> GgufWriter::set(std::string_view key, const GgufValue& value) {
  if (const auto* array = std::get_if<GgufArray>(&value.value)) {
    return set_pair(key, GgufValueType::kArray, encoded(*array));
  }
  return set_pair(key, value.type, encoded(value.type, std::get<GgufScalar>(value.value)));
}

Result<> GgufWriter::set_array(std::string_view key, std::span<const std::string_view> values) {
  std::string out = array_header(GgufValueType::kString, values.size());
  for (const std::string_view value : values) out += raw_string(value);
  return set_pair(key, GgufValueType::kArray, out);
}

Result<> GgufWriter::set_pair(std::string_view key, GgufValueType type, const std::string& value) {
  CHECK(!began_);
  if (key.empty() || key.size() > kMaxGgufKeyBytes) {
    return Error(ErrorCode::kInvalidArgument, "{}: a key of {} bytes; 1 to {} are possible", path_,
                 key.size(), kMaxGgufKeyBytes);
  }
  // The writer sets these itself, from its options.
  if (key == "general.alignment" || key.starts_with("split.")) {
    return Error(ErrorCode::kInvalidArgument, "{}: key {} is set by the writer", path_,
                 in_quotes(key));
  }
  if (!keys_.emplace(key).second) {
    return Error(ErrorCode::kInvalidArgument, "{}: key {} is set twice", path_, in_quotes(key));
  }
  pairs_ += raw_pair(key, type, value);
  return Ok{};
}

Result<> GgufWriter::add_tensor(std::string_view name, TensorType type,
                                std::vector<uint64_t> dims) {
  CHECK(!began_);
  const std::string shown = in_quotes(name);
  if (name.empty() || name.size() > kMaxGgufTensorNameBytes) {
    return Error(ErrorCode::kInvalidArgument,
                 "{}: tensor name {} has {} bytes; 1 to {} are possible", path_, shown, name.size(),
                 kMaxGgufTensorNameBytes);
  }
  if (dims.empty() || dims.size() > kMaxGgufDims) {
    return Error(ErrorCode::kInvalidArgument,
                 "{}: tensor {} has {} dimensions; 1 to {} are possible", path_, shown, dims.size(),
                 kMaxGgufDims);
  }
  std::optional<uint64_t> elements = 1;
  for (const uint64_t dim : dims) elements = elements ? checked_mul(*elements, dim) : std::nullopt;
  const auto bytes = elements ? tensor_bytes(type, *elements) : std::nullopt;
  if (!bytes || *bytes == 0 || dims[0] % tensor_type_info(type).block_elements != 0) {
    return Error(ErrorCode::kInvalidArgument, "{}: tensor {} has a shape that {} cannot hold",
                 path_, shown, tensor_type_name(type));
  }
  if (!names_.emplace(name).second) {
    return Error(ErrorCode::kInvalidArgument, "{}: tensor {} is added twice", path_, shown);
  }
  tensors_.push_back({std::string(name), type, std::move(dims), *bytes});
  return Ok{};
}

void GgufWriter::assign_shards() {
  size_t shard = 0;
  uint64_t used = 0;  // bytes of the shard's data section
  for (Tensor& tensor : tensors_) {
    const uint64_t padded =
        checked_align_up(tensor.bytes, options_.alignment).value_or(tensor.bytes);
    if (options_.max_shard_bytes > 0 && used > 0 && used + padded > options_.max_shard_bytes) {
      ++shard;
      used = 0;
    }
    tensor.shard = shard;
    tensor.offset = used;
    used += padded;
  }
  shard_count_ = shard + 1;
}

std::string GgufWriter::shard_path(size_t shard) const {
  if (shard_count_ == 1) return path_;
  std::string stem = path_;
  if (stem.ends_with(".gguf")) stem.resize(stem.size() - 5);
  return fmt::format("{}-{:05}-of-{:05}.gguf", stem, shard + 1, shard_count_);
}

// The first shard carries all metadata, every shard its number.
std::string GgufWriter::header(size_t shard) const {
  std::string pairs = shard == 0 ? pairs_ : std::string();
  uint64_t pair_count = shard == 0 ? keys_.size() : 0;
  auto add = [&]<typename T>(std::string_view key, T value) {
    pairs += raw_pair(key, type_of<T>(), raw(value));
    ++pair_count;
  };
  if (options_.alignment != 32) add("general.alignment", options_.alignment);
  if (shard_count_ > 1) {
    add("split.no", static_cast<uint16_t>(shard));
    add("split.count", static_cast<uint16_t>(shard_count_));
    add("split.tensors.count", static_cast<int32_t>(tensors_.size()));
  }
  std::string infos;
  uint64_t info_count = 0;
  for (const Tensor& tensor : tensors_) {
    if (tensor.shard != shard) continue;
    ++info_count;
    infos += raw_string(tensor.name) + raw(static_cast<uint32_t>(tensor.dims.size()));
    for (const uint64_t dim : tensor.dims) infos += raw(dim);
    infos += raw(static_cast<uint32_t>(tensor.type)) + raw(tensor.offset);
  }
  return "GGUF" + raw(kVersion) + raw(info_count) + raw(pair_count) + pairs + infos;
}

Result<> GgufWriter::begin() {
  CHECK(!began_);
  began_ = true;
  assign_shards();
  if (shard_count_ > kMaxGgufShards) {
    return Error(ErrorCode::kInvalidArgument,
                 "{}: {} shards, the limit is {}; allow more bytes per shard", path_, shard_count_,
                 kMaxGgufShards);
  }
  for (size_t shard = 0; shard < shard_count_; ++shard) paths_.push_back(shard_path(shard));
  return open_shard(0);
}

Result<> GgufWriter::open_shard(size_t shard) {
  const std::string partial = paths_[shard] + std::string(kPartial);
  fd_ = ::open(partial.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd_ < 0) return system_error(partial, "creating it");
  open_shard_ = shard;
  position_ = 0;
  const std::string text = header(shard);
  RETURN_IF_ERROR(write_raw(std::as_bytes(std::span(text))));
  return pad_to_alignment();
}

Result<> GgufWriter::write_raw(std::span<const std::byte> bytes) {
  position_ += bytes.size();
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return system_error(paths_[open_shard_], "writing");
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
  return Ok{};
}

Result<> GgufWriter::pad_to_alignment() {
  const uint64_t end = checked_align_up(position_, options_.alignment).value_or(position_);
  const std::vector<std::byte> zeros(end - position_);
  return write_raw(zeros);
}

Result<> GgufWriter::write(std::span<const std::byte> bytes) {
  CHECK(began_);
  while (!bytes.empty()) {
    if (next_tensor_ == tensors_.size()) {
      return Error(ErrorCode::kInvalidArgument, "{}: {} bytes more than its tensors hold", path_,
                   bytes.size());
    }
    const Tensor& tensor = tensors_[next_tensor_];
    if (tensor.shard != open_shard_) {
      RETURN_IF_ERROR(close_shard());
      RETURN_IF_ERROR(open_shard(tensor.shard));
    }
    const uint64_t length = std::min<uint64_t>(bytes.size(), tensor.bytes - tensor_bytes_written_);
    RETURN_IF_ERROR(write_raw(bytes.first(length)));
    bytes = bytes.subspan(length);
    tensor_bytes_written_ += length;
    if (tensor_bytes_written_ == tensor.bytes) {
      RETURN_IF_ERROR(pad_to_alignment());
      ++next_tensor_;
      tensor_bytes_written_ = 0;
    }
  }
  return Ok{};
}

Result<> GgufWriter::close_shard() {
  const int fd = std::exchange(fd_, -1);
  const bool synced = ::fsync(fd) == 0;
  const bool closed = ::close(fd) == 0;
  if (!synced || !closed) return system_error(paths_[open_shard_], "writing it to disk");
  return Ok{};
}

Result<> GgufWriter::finish() {
  CHECK(began_);
  if (next_tensor_ != tensors_.size()) {
    return Error(ErrorCode::kInvalidArgument, "{}: bytes of tensor {} are missing", path_,
                 in_quotes(tensors_[next_tensor_].name));
  }
  RETURN_IF_ERROR(close_shard());
  // The first shard last: who can open the model finds all of it.
  for (size_t i = paths_.size(); i-- > 0;) {
    const std::string partial = paths_[i] + std::string(kPartial);
    if (std::rename(partial.c_str(), paths_[i].c_str()) != 0)
      return system_error(paths_[i], "renaming");
  }
  renamed_ = true;
  return Ok{};
}

}  // namespace puna::formats
