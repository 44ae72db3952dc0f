// SPDX-License-Identifier: Apache-2.0
#include "quant/importance.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <optional>

#include "base/mapped_file.h"
#include "formats/gguf.h"
#include "formats/gguf_writer.h"
#include "formats/message_text.h"

namespace puna::quant {
namespace {

using formats::GgufFile;
using formats::GgufTensor;
using formats::TensorType;

constexpr std::string_view kSums = ".in_sum2";
constexpr std::string_view kCounts = ".counts";
constexpr int32_t kMaxEntries = 100'000;
constexpr int32_t kMaxNameBytes = 256;
constexpr int32_t kMaxColumns = 1 << 24;

Error corrupt(const std::string& path, std::string_view name, std::string_view problem) {
  return Error(ErrorCode::kCorrupt, "{}: importance of {} {}", path, formats::in_quotes(name),
               problem);
}

Result<> check_values(const std::string& path, std::string_view name,
                      const std::vector<float>& values) {
  for (const float value : values) {
    if (std::isfinite(value) && value >= 0.0F) continue;
    return corrupt(path, name, "holds a number that is negative or not finite");
  }
  return Ok{};
}

std::vector<float> floats_of(std::span<const std::byte> bytes) {
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
  return values;
}

// --- GGUF: two tensors per weight, "NAME.in_sum2" and "NAME.counts" ---

Result<ImportanceMatrix::Entry> read_entry(const GgufFile& file, const GgufTensor& sums,
                                           std::string_view name) {
  const GgufTensor* counts = file.find_tensor(std::string(name) + std::string(kCounts));
  if (counts == nullptr) return corrupt(file.path(), name, "has no counts");
  if (sums.type != TensorType::kF32 || counts->type != TensorType::kF32) {
    return corrupt(file.path(), name, "is not stored as F32");
  }
  const std::vector<float> count = floats_of(counts->data);
  if (count.size() != 1) {
    return Error(ErrorCode::kUnsupported,
                 "{}: {} has counts of {} experts; Puna serves dense models", file.path(),
                 formats::in_quotes(name), count.size());
  }
  ImportanceMatrix::Entry entry;
  entry.mean_squares = floats_of(sums.data);
  if (!std::isfinite(count[0]) || count[0] < 0.0F || count[0] > 9e15F) {
    return corrupt(file.path(), name, "has a count that is no count");
  }
  entry.tokens = static_cast<uint64_t>(count[0]);
  for (float& value : entry.mean_squares) value = count[0] > 0.0F ? value / count[0] : 1.0F;
  RETURN_IF_ERROR(check_values(file.path(), name, entry.mean_squares));
  return entry;
}

Result<ImportanceMatrix> read_gguf(const std::string& path) {
  ASSIGN_OR_RETURN(const GgufFile file, GgufFile::open(path));
  ImportanceMatrix matrix;
  for (const GgufTensor& tensor : file.tensors()) {
    if (!tensor.name.ends_with(kSums)) continue;
    const std::string_view name = tensor.name.substr(0, tensor.name.size() - kSums.size());
    ASSIGN_OR_RETURN(matrix.entries[std::string(name)], read_entry(file, tensor, name));
  }
  if (matrix.entries.empty()) {
    return Error(ErrorCode::kCorrupt, "{}: no importance matrix: it has no tensor *{}", path,
                 kSums);
  }
  if (const formats::GgufArray* names = file.get_array("imatrix.datasets")) {
    for (const formats::GgufScalar& name : names->values) {
      if (const auto* text = std::get_if<std::string_view>(&name))
        matrix.datasets.emplace_back(*text);
    }
  }
  matrix.chunks = static_cast<uint32_t>(file.get_u64("imatrix.chunk_count").value_or(0));
  matrix.chunk_tokens = static_cast<uint32_t>(file.get_u64("imatrix.chunk_size").value_or(0));
  return matrix;
}

Result<> write_gguf(const ImportanceMatrix& matrix, const std::string& path) {
  formats::GgufWriter writer(path, {});
  RETURN_IF_ERROR(writer.set("general.type", "imatrix"));
  const std::vector<std::string_view> names(matrix.datasets.begin(), matrix.datasets.end());
  RETURN_IF_ERROR(writer.set_array("imatrix.datasets", std::span<const std::string_view>(names)));
  RETURN_IF_ERROR(writer.set("imatrix.chunk_count", matrix.chunks));
  RETURN_IF_ERROR(writer.set("imatrix.chunk_size", matrix.chunk_tokens));
  for (const auto& [name, entry] : matrix.entries) {
    RETURN_IF_ERROR(writer.add_tensor(name + std::string(kSums), TensorType::kF32,
                                      {entry.mean_squares.size(), 1}));
    RETURN_IF_ERROR(writer.add_tensor(name + std::string(kCounts), TensorType::kF32, {1, 1}));
  }
  RETURN_IF_ERROR(writer.begin());
  for (const auto& [name, entry] : matrix.entries) {
    const auto count = static_cast<float>(entry.tokens);
    std::vector<float> sums = entry.mean_squares;
    for (float& value : sums) value *= count;
    RETURN_IF_ERROR(writer.write(std::as_bytes(std::span(sums))));
    RETURN_IF_ERROR(writer.write(std::as_bytes(std::span(&count, 1))));
  }
  return writer.finish();
}

// --- .dat: i32 entries; per entry i32 length, name, i32 calls, i32 columns, f32 means * calls;
// --- then i32 chunks, i32 length, dataset ---

class DatReader {
 public:
  DatReader(std::span<const std::byte> bytes, const std::string& path)
      : bytes_(bytes), path_(path) {}

  Result<ImportanceMatrix> read() {
    ASSIGN_OR_RETURN(const int32_t entries, integer(1, kMaxEntries, "number of entries"));
    ImportanceMatrix matrix;
    for (int32_t i = 0; i < entries; ++i) RETURN_IF_ERROR(read_entry(matrix));
    if (bytes_.empty()) return matrix;  // the oldest files end here
    ASSIGN_OR_RETURN(const int32_t chunks, integer(0, INT32_MAX, "number of chunks"));
    matrix.chunks = static_cast<uint32_t>(chunks);
    if (bytes_.empty()) return matrix;
    ASSIGN_OR_RETURN(const int32_t length, integer(0, INT32_MAX, "length of the data set's name"));
    ASSIGN_OR_RETURN(const auto name, take(static_cast<size_t>(length)));
    matrix.datasets.emplace_back(reinterpret_cast<const char*>(name.data()), name.size());
    return matrix;
  }

 private:
  Error damaged(std::string_view what) const {
    return Error(ErrorCode::kCorrupt, "{}: no importance matrix: {}", path_, what);
  }
  Result<std::span<const std::byte>> take(size_t count) {
    if (count > bytes_.size()) return damaged("the file ends too early");
    const auto piece = bytes_.first(count);
    bytes_ = bytes_.subspan(count);
    return piece;
  }
  Result<int32_t> integer(int32_t low, int32_t high, std::string_view what) {
    ASSIGN_OR_RETURN(const auto piece, take(sizeof(int32_t)));
    int32_t value = 0;
    std::memcpy(&value, piece.data(), sizeof(value));
    if (value >= low && value <= high) return value;
    return damaged(fmt::format("the {} is {}", what, value));
  }
  Result<> read_entry(ImportanceMatrix& matrix) {
    ASSIGN_OR_RETURN(const int32_t length, integer(1, kMaxNameBytes, "length of a name"));
    ASSIGN_OR_RETURN(const auto name_bytes, take(static_cast<size_t>(length)));
    const std::string name(reinterpret_cast<const char*>(name_bytes.data()), name_bytes.size());
    ASSIGN_OR_RETURN(const int32_t calls, integer(0, INT32_MAX, "number of calls"));
    ASSIGN_OR_RETURN(const int32_t columns, integer(1, kMaxColumns, "number of columns"));
    ASSIGN_OR_RETURN(const auto values, take(static_cast<size_t>(columns) * sizeof(float)));
    ImportanceMatrix::Entry entry;
    entry.mean_squares = floats_of(values);
    if (calls > 0) {
      for (float& value : entry.mean_squares) value /= static_cast<float>(calls);
    }
    entry.tokens = static_cast<uint64_t>(calls) * matrix.chunk_tokens;
    RETURN_IF_ERROR(check_values(path_, name, entry.mean_squares));
    if (!matrix.entries.emplace(name, std::move(entry)).second)
      return corrupt(path_, name, "is there twice");
    return Ok{};
  }

  std::span<const std::byte> bytes_;
  const std::string& path_;
};

template <typename T>
void append(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

std::string dat_bytes(const ImportanceMatrix& matrix) {
  std::string out;
  append(out, static_cast<int32_t>(matrix.entries.size()));
  for (const auto& [name, entry] : matrix.entries) {
    const uint64_t chunk = std::max<uint64_t>(matrix.chunk_tokens, 1);
    const auto calls = static_cast<int32_t>((entry.tokens + chunk - 1) / chunk);
    append(out, static_cast<int32_t>(name.size()));
    out += name;
    append(out, calls);
    append(out, static_cast<int32_t>(entry.mean_squares.size()));
    for (const float value : entry.mean_squares) {
      append(out, calls > 0 ? value * static_cast<float>(calls) : value);
    }
  }
  append(out, static_cast<int32_t>(matrix.chunks));
  const std::string dataset = matrix.datasets.empty() ? "" : matrix.datasets.front();
  append(out, static_cast<int32_t>(dataset.size()));
  return out + dataset;
}

Result<> write_dat(const ImportanceMatrix& matrix, const std::string& path) {
  const std::string partial = path + ".partial";
  const std::string bytes = dat_bytes(matrix);
  const auto failed = [&](std::string_view action) {
    Error error(ErrorCode::kIo, "{}: {} failed: {}", path, action, std::strerror(errno));
    (void)std::remove(partial.c_str());
    return error;
  };
  std::FILE* file = std::fopen(partial.c_str(), "wb");
  if (file == nullptr) return failed("creating it");
  const bool written = std::fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size();
  const bool closed = std::fclose(file) == 0;
  if (!written || !closed) return failed("writing");
  if (std::rename(partial.c_str(), path.c_str()) != 0) return failed("renaming");
  return Ok{};
}

}  // namespace

Result<ImportanceMatrix> read_importance(const std::string& path) {
  ASSIGN_OR_RETURN(const MappedFile file, MappedFile::open(path));
  const auto bytes = file.bytes();
  if (bytes.size() >= 4 && std::memcmp(bytes.data(), "GGUF", 4) == 0) return read_gguf(path);
  return DatReader(bytes, path).read();
}

Result<> write_importance(const ImportanceMatrix& matrix, const std::string& path) {
  return path.ends_with(".gguf") ? write_gguf(matrix, path) : write_dat(matrix, path);
}

}  // namespace puna::quant
