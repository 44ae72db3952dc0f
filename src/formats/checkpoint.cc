// SPDX-License-Identifier: Apache-2.0
#include "formats/checkpoint.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <utility>

#include "base/check.h"
#include "formats/checkpoint_state.h"
#include "formats/weight_names.h"

namespace puna::formats {
namespace {

// "Q4_K + Q6_K": the types of the matrices, most bytes first.
std::string summarise_types(const std::vector<TensorView>& weights) {
  std::map<TensorType, uint64_t> bytes_of;
  for (const TensorView& view : weights) {
    if (view.rows > 1) bytes_of[view.type] += view.data.size();
  }
  std::vector<std::pair<TensorType, uint64_t>> sorted(bytes_of.begin(), bytes_of.end());
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });
  std::string summary;
  for (const auto& [type, bytes] : sorted) {
    if (!summary.empty()) summary += " + ";
    summary += tensor_type_name(type);
  }
  return summary;
}

// The mapped file that holds `data`, or null.
const MappedFile* file_of(std::span<const std::byte> data, const MappedFile& file) {
  const std::span<const std::byte> bytes = file.bytes();
  const bool inside =
      data.data() >= bytes.data() && data.data() + data.size() <= bytes.data() + bytes.size();
  return inside ? &file : nullptr;
}

}  // namespace

Result<Checkpoint> Checkpoint::open(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) {
    const ErrorCode code = errno == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo;
    return Error(code, "{}: {}", path, std::strerror(errno));
  }
  if (S_ISDIR(info.st_mode)) {
    ASSIGN_OR_RETURN(auto state, State::from_hugging_face(path));
    return Checkpoint(std::move(state));
  }
  if (path.ends_with(".safetensors") || path.ends_with(".json")) {
    return Error(ErrorCode::kInvalidArgument,
                 "{}: give the folder that holds it, not one file of it", path);
  }
  ASSIGN_OR_RETURN(GgufFile file, GgufFile::open(path));
  return from_gguf(std::move(file));
}

Result<Checkpoint> Checkpoint::from_gguf(GgufFile file) {
  ASSIGN_OR_RETURN(auto state, State::from_gguf(std::move(file)));
  return Checkpoint(std::move(state));
}

Checkpoint::Checkpoint(std::unique_ptr<State> state) : state_(std::move(state)) {
  state_->type_summary = summarise_types(state_->weights);
}
Checkpoint::Checkpoint(Checkpoint&&) noexcept = default;
Checkpoint& Checkpoint::operator=(Checkpoint&&) noexcept = default;
Checkpoint::~Checkpoint() = default;

const std::string& Checkpoint::path() const { return state_->path; }
const ModelSpec& Checkpoint::spec() const { return state_->spec; }
uint64_t Checkpoint::weight_bytes() const { return state_->weight_bytes; }
std::string_view Checkpoint::type_summary() const { return state_->type_summary; }

TokenizerSource Checkpoint::tokenizer_source() const {
  TokenizerSource source;
  source.gguf = state_->gguf.get();
  if (source.gguf == nullptr) source.folder = state_->path;
  return source;
}

void Checkpoint::forget_tokenizer() {
  if (state_->gguf != nullptr) state_->gguf->forget_arrays();
}

const TensorView& Checkpoint::tensor(WeightId id) const {
  const size_t index = weight_index(id);
  CHECK_LT(index, state_->weights.size());
  return state_->weights[index];
}

void Checkpoint::drop_all_pages() const {
  if (state_->gguf != nullptr) {
    for (const MappedFile& shard : state_->gguf->shards()) shard.drop_pages(0, shard.size());
  }
  if (state_->safetensors != nullptr) {
    for (const SafetensorsFile& part : state_->safetensors->files()) {
      part.mapped().drop_pages(0, part.mapped().size());
    }
  }
}

void Checkpoint::drop_pages(const TensorView& tensor) const {
  const MappedFile* file = nullptr;
  if (state_->gguf != nullptr) {
    for (const MappedFile& shard : state_->gguf->shards()) {
      if (file == nullptr) file = file_of(tensor.data, shard);
    }
  }
  if (state_->safetensors != nullptr) {
    for (const SafetensorsFile& part : state_->safetensors->files()) {
      if (file == nullptr) file = file_of(tensor.data, part.mapped());
    }
  }
  if (file == nullptr) return;  // parsed from bytes in memory
  file->drop_pages(static_cast<size_t>(tensor.data.data() - file->bytes().data()),
                   tensor.data.size());
}

}  // namespace puna::formats
