// SPDX-License-Identifier: Apache-2.0
// Bytes as lower-case hexadecimal text.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace puna::check {

inline std::string hex(std::span<const unsigned char> bytes) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  text.reserve(2 * bytes.size());
  for (const unsigned char byte : bytes) {
    text += kDigits[byte >> 4U];
    text += kDigits[byte & 15U];
  }
  return text;
}

}  // namespace puna::check
