// SPDX-License-Identifier: Apache-2.0
#include "quant/folder_files.h"

#include <boost/json.hpp>
#include <filesystem>
#include <fstream>
#include <string_view>
#include <system_error>
#include <utility>

#include "base/mapped_file.h"

namespace puna::quant {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

constexpr uintmax_t kLargestCopied = uintmax_t{256} << 20;  // tokenizers, settings, licences
constexpr const char* kMarker = "/.puna-unfinished";        // in a folder that may be thrown away

json::object quantization_config(FolderScheme scheme, int64_t group) {
  const bool fp8 = scheme == FolderScheme::kFp8Dynamic;
  const bool int4 = scheme == FolderScheme::kW4A16;
  json::object weights = {{"num_bits", int4 ? 4 : 8},
                          {"type", fp8 ? "float" : "int"},
                          {"symmetric", true},
                          {"dynamic", false},
                          {"strategy", int4 ? "group" : "channel"},
                          {"observer", int4 ? "mse" : "minmax"}};
  weights["group_size"] = int4 ? json::value(group) : json::value(nullptr);
  json::value activations = nullptr;
  if (!int4) {
    activations = json::object{{"num_bits", 8},
                               {"type", fp8 ? "float" : "int"},
                               {"symmetric", true},
                               {"dynamic", true},
                               {"strategy", "token"}};
  }
  const char* format = int4 ? "pack-quantized" : fp8 ? "float-quantized" : "int-quantized";
  return {{"quant_method", "compressed-tensors"},
          {"format", format},
          {"quantization_status", "compressed"},
          {"ignore", json::array{"lm_head"}},
          {"config_groups",
           json::object{{"group_0", json::object{{"targets", json::array{"Linear"}},
                                                 {"weights", std::move(weights)},
                                                 {"input_activations", std::move(activations)},
                                                 {"output_activations", nullptr}}}}}};
}

bool is_copied(const fs::directory_entry& entry) {
  std::error_code error;
  const std::string name = entry.path().filename().string();
  const std::string extension = entry.path().extension().string();
  return entry.is_regular_file(error) && entry.file_size(error) <= kLargestCopied &&
         name != "config.json" && name != "hf_quant_config.json" &&
         !name.ends_with(".index.json") && extension != ".safetensors" && extension != ".bin" &&
         extension != ".gguf" && extension != ".pth";
}

}  // namespace

PartialFolder::PartialFolder(std::string place)
    : place_(std::move(place)), path_(place_ + ".partial") {}

PartialFolder::~PartialFolder() {
  std::error_code ignored;
  if (made_) fs::remove_all(path_, ignored);
}

Result<> PartialFolder::make() {
  std::error_code error;
  if (fs::exists(place_, error)) {
    return Error(ErrorCode::kInvalidArgument, "{}: it exists already; name a new folder", place_);
  }
  const bool left_over = fs::exists(path_ + kMarker, error);
  if (left_over) fs::remove_all(path_, error);
  if (!left_over && fs::exists(path_, error)) {
    return Error(ErrorCode::kInvalidArgument,
                 "{}: it exists and is not puna's; the output is made there: move it away", path_);
  }
  if (!fs::create_directory(path_, error)) {
    return Error(ErrorCode::kIo, "{}: creating it failed: {}", path_, error.message());
  }
  made_ = true;
  std::ofstream marker(path_ + kMarker);
  marker.close();
  if (marker.good()) return Ok{};
  return Error(ErrorCode::kIo, "{}: writing in it failed", path_);
}

Result<> PartialFolder::put_in_place() {
  std::error_code error;
  fs::remove(path_ + kMarker, error);
  if (!error) fs::rename(path_, place_, error);
  if (error) return Error(ErrorCode::kIo, "{}: renaming failed: {}", place_, error.message());
  made_ = false;
  return Ok{};
}

Result<> write_folder_config(const formats::Checkpoint& checkpoint, FolderScheme scheme,
                             int64_t group, const std::string& folder) {
  ASSIGN_OR_RETURN(const MappedFile file, MappedFile::open(checkpoint.path() + "/config.json"));
  boost::system::error_code error;
  json::value config = json::parse(
      std::string_view(reinterpret_cast<const char*>(file.bytes().data()), file.size()), error);
  if (error || !config.is_object())
    return Error(ErrorCode::kCorrupt, "{}/config.json is no JSON object", checkpoint.path());
  config.get_object()["quantization_config"] = quantization_config(scheme, group);
  std::ofstream out(folder + "/config.json", std::ios::binary);
  out << json::serialize(config) << "\n";
  out.close();
  if (!out.good()) return Error(ErrorCode::kIo, "{}/config.json: writing failed", folder);
  return Ok{};
}

Result<> copy_other_files(const std::string& from, const std::string& folder) {
  std::error_code error;
  for (fs::directory_iterator entry(from, error), end; !error && entry != end;
       entry.increment(error)) {
    if (!is_copied(*entry)) continue;
    fs::copy_file(entry->path(), fs::path(folder) / entry->path().filename(), error);
    if (error) break;
  }
  if (!error) return Ok{};
  return Error(ErrorCode::kIo, "{}: copying the tokenizer's files failed: {}", folder,
               error.message());
}

}  // namespace puna::quant
