// SPDX-License-Identifier: Apache-2.0
#include "formats/safetensors_writer.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "base/check.h"
#include "base/checked_math.h"
#include "formats/message_text.h"

namespace puna::formats {
SafetensorsWriter::SafetensorsWriter(std::string path) : path_(std::move(path)) {}

SafetensorsWriter::~SafetensorsWriter() {
  if (fd_ >= 0) ::close(fd_);
  if (!finished_ && fd_ >= 0) ::unlink(path_.c_str());
}

Result<> SafetensorsWriter::add_tensor(std::string_view name, SafetensorsDtype dtype,
                                       const std::vector<uint64_t>& dims) {
  CHECK(fd_ < 0);
  std::optional<uint64_t> bytes = safetensors_dtype_bytes(dtype);
  for (const uint64_t dim : dims) bytes = bytes ? checked_mul(*bytes, dim) : std::nullopt;
  const auto end = bytes ? checked_add(total_, *bytes) : std::nullopt;
  if (!end || !names_.emplace(name).second) {
    return Error(ErrorCode::kInvalidArgument, "{}: tensor {} is there twice or too large", path_,
                 in_quotes(name));
  }
  const std::string key = boost::json::serialize(boost::json::string(name));
  entries_ += fmt::format("{}{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                          entries_.empty() ? "" : ",", key, safetensors_dtype_name(dtype),
                          fmt::join(dims, ","), total_, *end);
  total_ = *end;
  return Ok{};
}

Result<> SafetensorsWriter::begin() {
  CHECK(fd_ < 0);
  fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd_ < 0) return system_error(path_, "creating it");
  std::string header = "{\"__metadata__\":{\"format\":\"pt\"}," + entries_ + "}";
  header.resize((header.size() + 7) / 8 * 8, ' ');  // tensors begin aligned
  const uint64_t length = header.size();
  RETURN_IF_ERROR(write_raw(std::as_bytes(std::span(&length, 1))));
  return write_raw(std::as_bytes(std::span(header)));
}

Result<> SafetensorsWriter::write_raw(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t done = ::write(fd_, bytes.data(), bytes.size());
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) return system_error(path_, "writing");
    bytes = bytes.subspan(static_cast<size_t>(done));
  }
  return Ok{};
}

Result<> SafetensorsWriter::write(std::span<const std::byte> bytes) {
  CHECK(fd_ >= 0);
  if (bytes.size() > total_ - written_) {
    return Error(ErrorCode::kInvalidArgument, "{}: more bytes than its tensors hold", path_);
  }
  written_ += bytes.size();
  return write_raw(bytes);
}

Result<> SafetensorsWriter::finish() {
  CHECK(fd_ >= 0);
  if (written_ != total_) {
    return Error(ErrorCode::kInvalidArgument, "{}: {} bytes of its tensors are missing", path_,
                 total_ - written_);
  }
  if (::fsync(fd_) != 0) return system_error(path_, "writing it to disk");
  finished_ = true;
  if (::close(std::exchange(fd_, -1)) != 0) return system_error(path_, "writing it to disk");
  return Ok{};
}

}  // namespace puna::formats
