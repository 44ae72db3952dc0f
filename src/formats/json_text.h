// SPDX-License-Identifier: Apache-2.0
// JSON of a model file, parsed by Boost.JSON under a size and a depth limit. Internal to formats.
#pragma once

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace puna::formats {

inline constexpr size_t kMaxJsonDepth = 32;

// The object that `text` holds, whole. `where` names the file in messages.
Result<boost::json::object> parse_json_object(std::string_view text, const std::string& where,
                                              size_t max_bytes);
// The same from a file; kNotFound when there is none.
Result<boost::json::object> read_json_object(const std::string& path, size_t max_bytes);

// A whole number from 0 that fits, written as an integer; else nullopt.
std::optional<uint64_t> json_u64(const boost::json::value& value);
// An integer or a floating-point number; else nullopt.
std::optional<double> json_number(const boost::json::value& value);

}  // namespace puna::formats
