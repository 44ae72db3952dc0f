// SPDX-License-Identifier: Apache-2.0
#include "formats/safetensors.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "base/checked_math.h"
#include "formats/json_text.h"
#include "formats/message_text.h"

namespace puna::formats {
namespace {

constexpr uint64_t kMaxHeaderBytes = 16U << 20;  // about 100 bytes per tensor are in use
constexpr size_t kMaxIndexBytes = 16U << 20;
constexpr size_t kMaxDims = 8;
constexpr size_t kMaxFiles = 1'000;
constexpr std::string_view kSingleName = "model.safetensors";
constexpr std::string_view kIndexName = "model.safetensors.index.json";

struct DtypeInfo {
  SafetensorsDtype dtype;
  std::string_view name;
  uint64_t bytes;
};
constexpr DtypeInfo kDtypes[] = {
    {SafetensorsDtype::kF32, "F32", 4},   {SafetensorsDtype::kF16, "F16", 2},
    {SafetensorsDtype::kBF16, "BF16", 2}, {SafetensorsDtype::kI8, "I8", 1},
    {SafetensorsDtype::kU8, "U8", 1},     {SafetensorsDtype::kI32, "I32", 4},
    {SafetensorsDtype::kI64, "I64", 8},   {SafetensorsDtype::kF8E4M3, "F8_E4M3", 1},
};

const DtypeInfo* find_dtype(std::string_view name) {
  for (const DtypeInfo& info : kDtypes) {
    if (info.name == name) return &info;
  }
  return nullptr;
}

std::string_view view(const boost::json::string& text) { return {text.data(), text.size()}; }

// A file beside the index: no directory part, so that an index cannot reach other folders.
bool is_plain_file_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\\\0", 3)) == std::string_view::npos;
}

}  // namespace

std::string_view safetensors_dtype_name(SafetensorsDtype dtype) {
  return kDtypes[static_cast<size_t>(dtype)].name;
}

uint64_t safetensors_dtype_bytes(SafetensorsDtype dtype) {
  return kDtypes[static_cast<size_t>(dtype)].bytes;
}

std::optional<TensorType> float_type(SafetensorsDtype dtype) {
  switch (dtype) {
    case SafetensorsDtype::kF32:
      return TensorType::kF32;
    case SafetensorsDtype::kF16:
      return TensorType::kF16;
    case SafetensorsDtype::kBF16:
      return TensorType::kBF16;
    default:
      return std::nullopt;
  }
}

class SafetensorsParser {
 public:
  SafetensorsParser(std::span<const std::byte> data, const std::string& name)
      : data_(data), name_(name) {}

  Result<SafetensorsFile> parse() {
    ASSIGN_OR_RETURN(const boost::json::object header, read_header());
    for (const auto& item : header) {
      if (item.key() == "__metadata__") continue;
      RETURN_IF_ERROR(read_tensor(item.key(), item.value()));
    }
    RETURN_IF_ERROR(check_coverage());
    SafetensorsFile file;
    file.tensors_ = std::move(tensors_);
    for (size_t i = 0; i < file.tensors_.size(); ++i) file.index_.emplace(file.tensors_[i].name, i);
    return file;
  }

 private:
  Result<boost::json::object> read_header();
  Result<> read_tensor(std::string_view name, const boost::json::value& info);
  Result<uint64_t> read_shape(SafetensorsTensor& tensor, const boost::json::value* shape) const;
  Result<> check_coverage();

  Error corrupt(std::string_view message) const {
    return Error(ErrorCode::kCorrupt, "{}: damaged safetensors file: {}", name_, message);
  }

  std::span<const std::byte> data_;
  const std::string& name_;
  std::span<const std::byte> section_;  // the bytes that the offsets count from
  std::vector<SafetensorsTensor> tensors_;
};

Result<boost::json::object> SafetensorsParser::read_header() {
  if (data_.empty()) return Error(ErrorCode::kCorrupt, "{}: the file is empty", name_);
  uint64_t length = 0;
  if (data_.size() < sizeof(length)) return corrupt("it ends inside the header's length");
  std::memcpy(&length, data_.data(), sizeof(length));
  const std::span<const std::byte> rest = data_.subspan(sizeof(length));
  if (length > kMaxHeaderBytes || length > rest.size()) {
    return corrupt(fmt::format("its header claims {} bytes of a file of {} (limit {})", length,
                               data_.size(), kMaxHeaderBytes));
  }
  section_ = rest.subspan(length);
  const std::string_view text(reinterpret_cast<const char*>(rest.data()), length);
  return parse_json_object(text, name_, kMaxHeaderBytes);
}

Result<uint64_t> SafetensorsParser::read_shape(SafetensorsTensor& tensor,
                                               const boost::json::value* shape) const {
  const std::string name = in_quotes(tensor.name);
  if (shape == nullptr || !shape->is_array() || shape->get_array().size() > kMaxDims) {
    return corrupt(fmt::format("tensor {} has no shape of up to {} dimensions", name, kMaxDims));
  }
  uint64_t elements = 1;
  for (const boost::json::value& item : shape->get_array()) {
    const auto dim = json_u64(item);
    const auto product = dim ? checked_mul(elements, *dim) : std::nullopt;
    if (!product)
      return corrupt(fmt::format("the shape of tensor {} is no list of sizes that fit", name));
    elements = *product;
    tensor.dims.push_back(*dim);
  }
  return elements;
}

Result<> SafetensorsParser::read_tensor(std::string_view name, const boost::json::value& info) {
  SafetensorsTensor tensor;
  tensor.name = std::string(name);
  const std::string shown = in_quotes(name);
  const boost::json::object* fields = info.if_object();
  if (fields == nullptr) return corrupt(fmt::format("the entry of tensor {} is no object", shown));
  const boost::json::value* dtype = fields->if_contains("dtype");
  if (dtype == nullptr || !dtype->is_string())
    return corrupt(fmt::format("tensor {} has no dtype", shown));
  const DtypeInfo* known = find_dtype(view(dtype->get_string()));
  if (known == nullptr) {
    return Error(ErrorCode::kUnsupported,
                 "{}: tensor {} has dtype {}; Puna reads F32, F16, BF16, I8, U8, I32, I64 and "
                 "F8_E4M3",
                 name_, shown, in_quotes(view(dtype->get_string())));
  }
  tensor.dtype = known->dtype;
  ASSIGN_OR_RETURN(const uint64_t elements, read_shape(tensor, fields->if_contains("shape")));
  const boost::json::value* offsets = fields->if_contains("data_offsets");
  if (offsets == nullptr || !offsets->is_array() || offsets->get_array().size() != 2) {
    return corrupt(fmt::format("tensor {} has no pair of data_offsets", shown));
  }
  const auto begin = json_u64(offsets->get_array()[0]);
  const auto end = json_u64(offsets->get_array()[1]);
  if (!begin || !end || *begin > *end || *end > section_.size()) {
    return corrupt(fmt::format("data_offsets of tensor {} do not lie in its {} bytes of data",
                               shown, section_.size()));
  }
  const auto bytes = checked_mul(elements, known->bytes);
  if (!bytes || *bytes != *end - *begin) {
    return corrupt(
        fmt::format("tensor {} has {} bytes, which contradicts its shape", shown, *end - *begin));
  }
  tensor.data = section_.subspan(*begin, *bytes);
  tensors_.push_back(std::move(tensor));
  return Ok{};
}

// The format demands that tensors cover the data without gaps; a name that appears twice with other
// offsets leaves one.
Result<> SafetensorsParser::check_coverage() {
  std::sort(tensors_.begin(), tensors_.end(),
            [](const SafetensorsTensor& a, const SafetensorsTensor& b) {
              return a.data.data() != b.data.data() ? a.data.data() < b.data.data()
                                                    : a.data.size() < b.data.size();
            });
  uint64_t covered = 0;
  for (const SafetensorsTensor& tensor : tensors_) {
    const auto begin = static_cast<uint64_t>(tensor.data.data() - section_.data());
    if (begin < covered)
      return corrupt(fmt::format("tensor {} overlaps another one", in_quotes(tensor.name)));
    if (begin > covered) {
      return corrupt(fmt::format("{} bytes before tensor {} belong to no tensor", begin - covered,
                                 in_quotes(tensor.name)));
    }
    covered = begin + tensor.data.size();
  }
  if (covered != section_.size()) {
    return corrupt(
        fmt::format("{} bytes after the last tensor belong to none", section_.size() - covered));
  }
  return Ok{};
}

Result<SafetensorsFile> SafetensorsFile::open(const std::string& path) {
  ASSIGN_OR_RETURN(MappedFile mapped, MappedFile::open(path));
  ASSIGN_OR_RETURN(SafetensorsFile file, parse(mapped.bytes(), path));
  file.mapped_ = std::move(mapped);
  return file;
}

Result<SafetensorsFile> SafetensorsFile::parse(std::span<const std::byte> data,
                                               const std::string& name) {
  return SafetensorsParser(data, name).parse();
}

const SafetensorsTensor* SafetensorsFile::find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

const SafetensorsTensor* SafetensorsFolder::find(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : found->second;
}

Result<SafetensorsFolder> SafetensorsFolder::open(const std::string& folder) {
  auto single = SafetensorsFile::open(fmt::format("{}/{}", folder, kSingleName));
  if (!single.ok() && single.error().code() == ErrorCode::kNotFound) return open_index(folder);
  if (!single.ok()) return std::move(single).error();
  SafetensorsFolder model;
  model.files_.push_back(std::move(single).value());
  for (const SafetensorsTensor& tensor : model.files_[0].tensors())
    model.tensors_.emplace(tensor.name, &tensor);
  return model;
}

Result<SafetensorsFolder> SafetensorsFolder::open_index(const std::string& folder) {
  const std::string index_path = fmt::format("{}/{}", folder, kIndexName);
  auto index = read_json_object(index_path, kMaxIndexBytes);
  if (!index.ok() && index.error().code() == ErrorCode::kNotFound) {
    return Error(ErrorCode::kNotFound, "{}: neither {} nor {} is inside", folder, kSingleName,
                 kIndexName);
  }
  if (!index.ok()) return std::move(index).error();
  const boost::json::value* weight_map = index->if_contains("weight_map");
  if (weight_map == nullptr || !weight_map->is_object()) {
    return Error(ErrorCode::kCorrupt, "{}: it has no object \"weight_map\"", index_path);
  }
  SafetensorsFolder model;
  std::map<std::string, size_t> opened;
  // Two passes: pointers into files_ are taken only when it grows no more.
  for (const auto& item : weight_map->get_object()) {
    const std::string file_name(item.value().is_string() ? view(item.value().get_string()) : "");
    if (!is_plain_file_name(file_name)) {
      return Error(ErrorCode::kCorrupt,
                   "{}: tensor {} is mapped to {}, which is no plain file name", index_path,
                   in_quotes(item.key()), in_quotes(file_name));
    }
    if (opened.contains(file_name)) continue;
    if (opened.size() == kMaxFiles) {
      return Error(ErrorCode::kUnsupported, "{}: it names more than {} files", index_path,
                   kMaxFiles);
    }
    ASSIGN_OR_RETURN(SafetensorsFile file,
                     SafetensorsFile::open(fmt::format("{}/{}", folder, file_name)));
    opened.emplace(file_name, model.files_.size());
    model.files_.push_back(std::move(file));
  }
  for (const auto& item : weight_map->get_object()) {
    const std::string file_name(view(item.value().get_string()));
    const SafetensorsTensor* tensor = model.files_[opened.at(file_name)].find(item.key());
    if (tensor == nullptr) {
      return Error(ErrorCode::kCorrupt, "{}: tensor {} is not in {}", index_path,
                   in_quotes(item.key()), file_name);
    }
    model.tensors_.emplace(tensor->name, tensor);
  }
  return model;
}

}  // namespace puna::formats
