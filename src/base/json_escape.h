// SPDX-License-Identifier: Apache-2.0
// What stands for a character inside a JSON string (RFC 8259, section 7).
#pragma once

#include <string>

namespace puna {

// Quotes, backslashes and control characters are escaped: the short way where there is one, else as
// \u00xx.
inline bool needs_json_escape(char c) {
  return static_cast<unsigned char>(c) < 0x20 || c == '"' || c == '\\';
}
void append_json_escape(std::string& out, char c);

}  // namespace puna
