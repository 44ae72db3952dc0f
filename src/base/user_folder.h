// SPDX-License-Identifier: Apache-2.0
// Folders of the user who runs the program, as the XDG Base Directory Specification places them.
#pragma once

#include <cstdlib>
#include <string>
#include <string_view>

namespace puna {

// What `variable` ("XDG_CACHE_HOME") names, else `in_home` (".cache") in the home folder; empty
// when neither variable is an absolute path.
inline std::string user_folder(const char* variable, std::string_view in_home) {
  const char* named = std::getenv(variable);
  if (named != nullptr && *named == '/') return named;
  const char* home = std::getenv("HOME");
  if (home == nullptr || *home != '/') return "";
  return std::string(home).append("/").append(in_home);
}

}  // namespace puna
