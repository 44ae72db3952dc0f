// SPDX-License-Identifier: Apache-2.0
// One character of UTF-8 at a time, strictly as RFC 3629: no overlong forms, no surrogates, nothing
// above U+10FFFF. What is malformed is told apart from what is merely unfinished.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace puna::model {

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

struct Utf8Char {
  enum class Status : uint8_t { kValid, kMalformed, kUnfinished };
  Status status = Status::kValid;
  uint32_t code_point = 0;
  // kValid: the character. kMalformed: the longest beginning of a character that the wrong byte
  // ended, at least 1 (what Unicode, and Python, replace by one U+FFFD). kUnfinished: what is
  // there.
  uint32_t length = 1;
};

// Bounds of the second byte for a first byte; later bytes are always 80..BF. Unicode 16, table 3-7.
struct Utf8Lead {
  uint32_t length = 0;  // 0: no character begins with this byte
  uint8_t second_low = 0x80;
  uint8_t second_high = 0xBF;
};

constexpr Utf8Lead utf8_lead(uint8_t first) {
  if (first < 0x80) return {1};
  if (first < 0xC2) return {0};
  if (first < 0xE0) return {2};
  if (first == 0xE0) return {3, 0xA0, 0xBF};
  if (first == 0xED) return {3, 0x80, 0x9F};
  if (first < 0xF0) return {3};
  if (first == 0xF0) return {4, 0x90, 0xBF};
  if (first < 0xF4) return {4};
  if (first == 0xF4) return {4, 0x80, 0x8F};
  return {0};
}

// The character at `position` < text.size().
inline Utf8Char utf8_char_at(std::string_view text, size_t position) {
  const auto first = static_cast<uint8_t>(text[position]);
  if (first < 0x80) return {Utf8Char::Status::kValid, first, 1};
  const Utf8Lead lead = utf8_lead(first);
  if (lead.length == 0) return {Utf8Char::Status::kMalformed, 0, 1};
  uint32_t code_point = first & (0xFFU >> (lead.length + 1));
  for (uint32_t i = 1; i < lead.length; ++i) {
    if (position + i >= text.size()) return {Utf8Char::Status::kUnfinished, 0, i};
    const auto next = static_cast<uint8_t>(text[position + i]);
    const uint8_t low = i == 1 ? lead.second_low : uint8_t{0x80};
    const uint8_t high = i == 1 ? lead.second_high : uint8_t{0xBF};
    if (next < low || next > high) return {Utf8Char::Status::kMalformed, 0, i};
    code_point = (code_point << 6) | (next & 0x3FU);
  }
  return {Utf8Char::Status::kValid, code_point, lead.length};
}

inline void append_utf8(std::string& out, uint32_t code_point) {
  const auto tail = [&](int shift) {
    out.push_back(static_cast<char>(0x80U | ((code_point >> shift) & 0x3FU)));
  };
  if (code_point < 0x80) {
    out.push_back(static_cast<char>(code_point));
  } else if (code_point < 0x800) {
    out.push_back(static_cast<char>(0xC0U | (code_point >> 6)));
    tail(0);
  } else if (code_point < 0x10000) {
    out.push_back(static_cast<char>(0xE0U | (code_point >> 12)));
    tail(6), tail(0);
  } else {
    out.push_back(static_cast<char>(0xF0U | (code_point >> 18)));
    tail(12), tail(6), tail(0);
  }
}

}  // namespace puna::model
