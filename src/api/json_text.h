// SPDX-License-Identifier: Apache-2.0
// JSON written straight into a string: responses are built on the token path, where a value tree
// would cost more than the text. Numbers are the shortest text that reads back as the same float or
// double.
#pragma once

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>

namespace puna::api {

// With quotes. Bytes that are no UTF-8 become U+FFFD, so the result is always valid JSON.
void append_json_string(std::string& out, std::string_view text);

void append_json_integer(std::string& out, int64_t value);
// JSON has no infinity: what is not finite becomes null.
void append_json_number(std::string& out, double value);
void append_json_number(std::string& out, float value);

std::string json_string(std::string_view text);

// A byte within a UTF-8 sequence, not its first.
inline bool is_continuation(char c) { return (static_cast<uint8_t>(c) & 0xC0U) == 0x80U; }
// Bytes of the valid UTF-8 sequence at the start of `text`, or 0.
size_t utf8_sequence(std::string_view text);
bool is_utf8(std::string_view text);
// Unicode characters in valid UTF-8: what Python's len() counts.
size_t utf8_length(std::string_view text);

}  // namespace puna::api
