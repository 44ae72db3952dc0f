// SPDX-License-Identifier: Apache-2.0
#include "formats/message_text.h"

#include <fmt/core.h>

namespace puna::formats {

std::string in_quotes(std::string_view text) {
  constexpr size_t kMaxShown = 100;
  std::string out = "\"";
  for (const char c : text.substr(0, kMaxShown)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte >= 0x7F || c == '"' || c == '\\') {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += c;
    }
  }
  if (text.size() > kMaxShown) out += "...";
  return out + '"';
}

}  // namespace puna::formats
