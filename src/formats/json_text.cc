// SPDX-License-Identifier: Apache-2.0
#include "formats/json_text.h"

#include <boost/json/parse.hpp>
#include <utility>

#include "base/mapped_file.h"

namespace puna::formats {

Result<boost::json::object> parse_json_object(std::string_view text, const std::string& where,
                                              size_t max_bytes) {
  if (text.size() > max_bytes) {
    return Error(ErrorCode::kUnsupported, "{}: {} bytes of JSON, the limit is {}", where,
                 text.size(), max_bytes);
  }
  boost::json::parse_options options;
  options.max_depth = kMaxJsonDepth;
  boost::system::error_code error;
  boost::json::value value = boost::json::parse(text, error, {}, options);
  if (error) return Error(ErrorCode::kCorrupt, "{}: invalid JSON: {}", where, error.message());
  if (!value.is_object()) return Error(ErrorCode::kCorrupt, "{}: its JSON is no object", where);
  return std::move(value.get_object());
}

Result<boost::json::object> read_json_object(const std::string& path, size_t max_bytes) {
  ASSIGN_OR_RETURN(const MappedFile file, MappedFile::open(path));
  const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()), file.size());
  return parse_json_object(text, path, max_bytes);
}

std::optional<uint64_t> json_u64(const boost::json::value& value) {
  if (const uint64_t* number = value.if_uint64()) return *number;
  const int64_t* number = value.if_int64();
  if (number == nullptr || *number < 0) return std::nullopt;
  return static_cast<uint64_t>(*number);
}

std::optional<double> json_number(const boost::json::value& value) {
  if (const double* number = value.if_double()) return *number;
  if (const int64_t* number = value.if_int64()) return static_cast<double>(*number);
  if (const uint64_t* number = value.if_uint64()) return static_cast<double>(*number);
  return std::nullopt;
}

}  // namespace puna::formats
