// SPDX-License-Identifier: Apache-2.0
// The version, from the project() line of CMakeLists.txt.
#pragma once

#include <string_view>

namespace puna::cli {

#ifdef PUNA_VERSION
inline constexpr std::string_view kVersion = PUNA_VERSION;
#else
inline constexpr std::string_view kVersion = "unversioned";
#endif

}  // namespace puna::cli
