// SPDX-License-Identifier: Apache-2.0
#include "formats/gguf_parser.h"

#include <fmt/core.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "base/checked_math.h"
#include "formats/message_text.h"

namespace puna::formats {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF is read by copying its bytes");

constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr uint32_t kOldestVersion = 2;   // versions 2 and 3 have the same little-endian layout
constexpr uint32_t kNewestVersion = 3;
// Smallest encodings: an empty key, its type and one byte; a name of one byte, rank, one dim, type,
// offset.
constexpr uint64_t kMinPairBytes = 8 + 4 + 1;
constexpr uint64_t kMinTensorInfoBytes = 8 + 1 + 4 + 8 + 4 + 8;

// Bytes that one array element takes at least.
uint64_t min_element_bytes(GgufValueType type) {
  switch (type) {
    case GgufValueType::kU8:
    case GgufValueType::kI8:
    case GgufValueType::kBool:
      return 1;
    case GgufValueType::kU16:
    case GgufValueType::kI16:
      return 2;
    case GgufValueType::kU32:
    case GgufValueType::kI32:
    case GgufValueType::kF32:
      return 4;
    case GgufValueType::kU64:
    case GgufValueType::kI64:
    case GgufValueType::kF64:
    case GgufValueType::kString:
      return 8;
    case GgufValueType::kArray:
      return 12;
  }
  return 1;
}

// ggml types that Puna does not read, so that the refusal can name them.
std::string_view foreign_type_name(uint32_t id) {
  constexpr std::pair<uint32_t, std::string_view> kNames[] = {
      {9, "Q8_1"},   {15, "Q8_K"},  {16, "IQ2_XXS"}, {17, "IQ2_XS"}, {18, "IQ3_XXS"},
      {19, "IQ1_S"}, {21, "IQ3_S"}, {22, "IQ2_S"},   {24, "I8"},     {25, "I16"},
      {26, "I32"},   {27, "I64"},   {28, "F64"},     {29, "IQ1_M"},  {34, "TQ1_0"},
      {35, "TQ2_0"}, {39, "MXFP4"}, {40, "NVFP4"}};
  for (const auto& [known, name] : kNames) {
    if (known == id) return name;
  }
  return "unknown";
}

}  // namespace

Error GgufParser::corrupt(std::string_view message) const {
  return Error(ErrorCode::kCorrupt, "{}: damaged GGUF file: {}", name_, message);
}

template <typename T>
Result<T> GgufParser::read_number(std::string_view what) {
  if (bytes_left() < sizeof(T)) {
    return corrupt(fmt::format("it ends inside {} (byte {} of {})", what, position_, data_.size()));
  }
  T value;
  std::memcpy(&value, data_.data() + position_, sizeof(T));
  position_ += sizeof(T);
  return value;
}

Result<std::string_view> GgufParser::read_string(uint64_t max_bytes, std::string_view what) {
  ASSIGN_OR_RETURN(const uint64_t length, read_number<uint64_t>(what));
  if (length > bytes_left()) {
    return corrupt(fmt::format("{} claims {} bytes, {} are left", what, length, bytes_left()));
  }
  if (length > max_bytes) {
    return corrupt(fmt::format("{} has {} bytes, the limit is {}", what, length, max_bytes));
  }
  const auto* begin = reinterpret_cast<const char*>(data_.data() + position_);
  position_ += length;
  return std::string_view(begin, length);
}

Result<GgufFile> GgufParser::parse() {
  file_.path_ = name_;
  file_.file_bytes_ = data_.size();
  RETURN_IF_ERROR(read_header());
  RETURN_IF_ERROR(read_metadata());
  RETURN_IF_ERROR(read_alignment());
  RETURN_IF_ERROR(read_tensor_infos());
  RETURN_IF_ERROR(place_tensors());
  return std::move(file_);
}

Result<> GgufParser::read_header() {
  if (data_.empty()) return Error(ErrorCode::kCorrupt, "{}: the file is empty", name_);
  if (data_.size() < sizeof(uint32_t)) return corrupt("it is shorter than its magic number");
  ASSIGN_OR_RETURN(const uint32_t magic, read_number<uint32_t>("the magic number"));
  if (magic != kMagic) {
    return Error(
        ErrorCode::kUnsupported,
        "{}: not a GGUF file (it begins with bytes {:02x} {:02x} {:02x} {:02x}, not \"GGUF\")",
        name_, magic & 0xFFU, (magic >> 8) & 0xFFU, (magic >> 16) & 0xFFU, magic >> 24);
  }
  ASSIGN_OR_RETURN(const uint32_t version, read_number<uint32_t>("the version"));
  if ((version & 0xFFFFU) == 0 && version != 0) {
    return Error(ErrorCode::kUnsupported,
                 "{}: a big-endian GGUF file; convert it with gguf-convert-endian", name_);
  }
  if (version < kOldestVersion || version > kNewestVersion) {
    return Error(ErrorCode::kUnsupported, "{}: GGUF version {}; Puna reads versions {} and {}",
                 name_, version, kOldestVersion, kNewestVersion);
  }
  ASSIGN_OR_RETURN(tensor_count_, read_number<uint64_t>("the tensor count"));
  ASSIGN_OR_RETURN(key_count_, read_number<uint64_t>("the key count"));
  if (key_count_ > bytes_left() / kMinPairBytes) {
    return corrupt(fmt::format("it claims {} keys in {} bytes", key_count_, bytes_left()));
  }
  if (tensor_count_ > bytes_left() / kMinTensorInfoBytes) {
    return corrupt(fmt::format("it claims {} tensors in {} bytes", tensor_count_, bytes_left()));
  }
  return Ok{};
}

Result<> GgufParser::read_metadata() {
  for (uint64_t i = 0; i < key_count_; ++i) {
    ASSIGN_OR_RETURN(const std::string_view key, read_string(kMaxGgufKeyBytes, "a key"));
    if (key.empty()) return corrupt(fmt::format("key {} is empty", i));
    ASSIGN_OR_RETURN(const GgufValueType type, read_value_type(key));
    ASSIGN_OR_RETURN(GgufValue value, read_value(type, key));
    if (!file_.metadata_.emplace(key, std::move(value)).second) {
      return corrupt(fmt::format("key {} appears twice", in_quotes(key)));
    }
  }
  return Ok{};
}

Result<GgufValueType> GgufParser::read_value_type(std::string_view key) {
  ASSIGN_OR_RETURN(const uint32_t id, read_number<uint32_t>("a value type"));
  if (id > static_cast<uint32_t>(GgufValueType::kF64)) {
    return corrupt(fmt::format("key {} has value type {}, types are 0 to 12", in_quotes(key), id));
  }
  return static_cast<GgufValueType>(id);
}

Result<GgufValue> GgufParser::read_value(GgufValueType type, std::string_view key) {
  if (type == GgufValueType::kArray) {
    ASSIGN_OR_RETURN(GgufArray array, read_array(key, 1));
    return GgufValue{type, std::move(array)};
  }
  ASSIGN_OR_RETURN(const GgufScalar scalar, read_scalar(type, key));
  return GgufValue{type, scalar};
}

Result<GgufScalar> GgufParser::read_scalar(GgufValueType type, std::string_view key) {
  // Widens a number of the file's type T to the variant's alternative To.
  auto widen = [&]<typename T, typename To>(T, To) -> Result<GgufScalar> {
    ASSIGN_OR_RETURN(const T value, read_number<T>("a value"));
    return GgufScalar(static_cast<To>(value));
  };
  switch (type) {
    case GgufValueType::kU8:
      return widen(uint8_t{}, uint64_t{});
    case GgufValueType::kU16:
      return widen(uint16_t{}, uint64_t{});
    case GgufValueType::kU32:
      return widen(uint32_t{}, uint64_t{});
    case GgufValueType::kU64:
      return widen(uint64_t{}, uint64_t{});
    case GgufValueType::kI8:
      return widen(int8_t{}, int64_t{});
    case GgufValueType::kI16:
      return widen(int16_t{}, int64_t{});
    case GgufValueType::kI32:
      return widen(int32_t{}, int64_t{});
    case GgufValueType::kI64:
      return widen(int64_t{}, int64_t{});
    case GgufValueType::kF32:
      return widen(float{}, double{});
    case GgufValueType::kF64:
      return widen(double{}, double{});
    case GgufValueType::kBool: {
      ASSIGN_OR_RETURN(const uint8_t value, read_number<uint8_t>("a value"));
      if (value > 1) {
        return corrupt(
            fmt::format("key {} holds the bool {}; only 0 and 1 are", in_quotes(key), value));
      }
      return GgufScalar(value == 1);
    }
    case GgufValueType::kString: {
      ASSIGN_OR_RETURN(const std::string_view text, read_string(data_.size(), "a string"));
      return GgufScalar(text);
    }
    case GgufValueType::kArray:
      break;
  }
  return corrupt(fmt::format("key {} nests a value wrongly", in_quotes(key)));
}

Result<GgufArray> GgufParser::read_array(std::string_view key, int depth) {
  if (depth > kMaxGgufArrayDepth) {
    return corrupt(
        fmt::format("key {} nests arrays deeper than {}", in_quotes(key), kMaxGgufArrayDepth));
  }
  GgufArray array;
  ASSIGN_OR_RETURN(array.element_type, read_value_type(key));
  ASSIGN_OR_RETURN(const uint64_t count, read_number<uint64_t>("an array's length"));
  if (count > bytes_left() / min_element_bytes(array.element_type)) {
    return corrupt(fmt::format("the array {} claims {} elements, {} bytes are left", in_quotes(key),
                               count, bytes_left()));
  }
  array_elements_ += count;  // cannot overflow: bounded by the file's bytes
  if (array_elements_ > kMaxGgufArrayElements) {
    return Error(ErrorCode::kUnsupported,
                 "{}: the metadata arrays hold more than {} elements (key {})", name_,
                 kMaxGgufArrayElements, in_quotes(key));
  }
  if (array.element_type == GgufValueType::kArray) {
    for (uint64_t i = 0; i < count; ++i) {
      ASSIGN_OR_RETURN(GgufArray nested, read_array(key, depth + 1));
      array.nested.push_back(std::move(nested));
    }
    return array;
  }
  array.values.reserve(count);
  for (uint64_t i = 0; i < count; ++i) {
    ASSIGN_OR_RETURN(const GgufScalar value, read_scalar(array.element_type, key));
    array.values.push_back(value);
  }
  return array;
}

Result<> GgufParser::read_alignment() {
  const GgufValue* value = file_.find("general.alignment");
  if (value == nullptr) return Ok{};
  const auto alignment = file_.get_u64("general.alignment");
  if (!alignment || *alignment < 8 || *alignment > kMaxGgufAlignment ||
      !std::has_single_bit(*alignment)) {
    return corrupt(
        fmt::format("general.alignment must be a power of two from 8 to {}", kMaxGgufAlignment));
  }
  file_.alignment_ = static_cast<uint32_t>(*alignment);
  return Ok{};
}

Result<> GgufParser::read_tensor_infos() {
  if (tensor_count_ > bytes_left() / kMinTensorInfoBytes) {
    return corrupt(fmt::format("it claims {} tensors in {} bytes", tensor_count_, bytes_left()));
  }
  file_.tensors_.reserve(tensor_count_);
  placements_.reserve(tensor_count_);
  for (uint64_t i = 0; i < tensor_count_; ++i) RETURN_IF_ERROR(read_tensor_info());
  return Ok{};
}

Result<TensorType> GgufParser::read_tensor_type(std::string_view tensor) {
  ASSIGN_OR_RETURN(const uint32_t id, read_number<uint32_t>("a tensor's type"));
  const TensorTypeInfo* info = find_tensor_type(id);
  if (info == nullptr) {
    return Error(ErrorCode::kUnsupported,
                 "{}: tensor {} has type {} ({}), which Puna does not read", name_,
                 in_quotes(tensor), id, foreign_type_name(id));
  }
  return info->type;
}

Result<> GgufParser::read_tensor_info() {
  GgufTensor tensor;
  ASSIGN_OR_RETURN(tensor.name, read_string(kMaxGgufTensorNameBytes, "a tensor's name"));
  if (tensor.name.empty()) return corrupt("a tensor has an empty name");
  const std::string name = in_quotes(tensor.name);
  ASSIGN_OR_RETURN(const uint32_t rank, read_number<uint32_t>("a tensor's rank"));
  if (rank == 0 || rank > kMaxGgufDims) {
    return corrupt(
        fmt::format("tensor {} has {} dimensions, 1 to {} are possible", name, rank, kMaxGgufDims));
  }
  uint64_t elements = 1;
  for (uint32_t i = 0; i < rank; ++i) {
    ASSIGN_OR_RETURN(const uint64_t dim, read_number<uint64_t>("a tensor's shape"));
    const auto product = checked_mul(elements, dim);
    if (!product || dim > INT64_MAX)
      return corrupt(fmt::format("the shape of tensor {} overflows", name));
    elements = *product;
    tensor.dims.push_back(dim);
  }
  if (elements == 0) return corrupt(fmt::format("tensor {} has a dimension of 0", name));
  ASSIGN_OR_RETURN(tensor.type, read_tensor_type(tensor.name));
  const TensorTypeInfo& info = tensor_type_info(tensor.type);
  if (tensor.dims[0] % info.block_elements != 0) {
    return corrupt(fmt::format("rows of tensor {} have {} elements, no multiple of {} ({})", name,
                               tensor.dims[0], info.block_elements, info.name));
  }
  ASSIGN_OR_RETURN(const uint64_t offset, read_number<uint64_t>("a tensor's offset"));
  const auto bytes = tensor_bytes(tensor.type, elements);
  if (!bytes) return corrupt(fmt::format("the size of tensor {} overflows", name));
  if (offset % file_.alignment_ != 0) {
    return corrupt(fmt::format("tensor {} is at offset {}, no multiple of {}", name, offset,
                               file_.alignment_));
  }
  if (!file_.tensor_index_.emplace(tensor.name, file_.tensors_.size()).second) {
    return corrupt(fmt::format("tensor {} appears twice", name));
  }
  placements_.push_back({offset, *bytes, file_.tensors_.size()});
  file_.tensors_.push_back(std::move(tensor));
  return Ok{};
}

Result<> GgufParser::place_tensors() {
  if (placements_.empty()) return Ok{};
  const auto data_begin = checked_align_up(position_, file_.alignment_);
  if (!data_begin || *data_begin > data_.size()) return corrupt("it ends before its tensor data");
  const std::span<const std::byte> section = data_.subspan(*data_begin);
  for (const Placement& placement : placements_) {
    GgufTensor& tensor = file_.tensors_[placement.tensor];
    const auto end = checked_add(placement.offset, placement.bytes);
    if (!end || *end > section.size()) {
      return corrupt(
          fmt::format("tensor {} needs {} bytes at offset {} of a data section of {} bytes{}",
                      in_quotes(tensor.name), placement.bytes, placement.offset, section.size(),
                      end ? " (is the download complete?)" : ""));
    }
    tensor.data = section.subspan(placement.offset, placement.bytes);
  }
  return check_overlap(placements_);
}

Result<> GgufParser::check_overlap(std::vector<Placement> placements) const {
  std::sort(placements.begin(), placements.end(),
            [](const Placement& a, const Placement& b) { return a.offset < b.offset; });
  for (size_t i = 1; i < placements.size(); ++i) {
    const Placement& before = placements[i - 1];
    if (placements[i].offset < before.offset + before.bytes) {
      return corrupt(fmt::format("tensors {} and {} overlap",
                                 in_quotes(file_.tensors_[before.tensor].name),
                                 in_quotes(file_.tensors_[placements[i].tensor].name)));
    }
  }
  return Ok{};
}

}  // namespace puna::formats
