// SPDX-License-Identifier: Apache-2.0
// FNV-1a in 64 bits (Fowler, Noll, Vo), for telling texts apart: not against who wants two alike.
#pragma once

#include <cstdint>
#include <string_view>

namespace puna {

constexpr uint64_t fnv1a(std::string_view text) {
  uint64_t hash = 0xCBF29CE484222325;
  for (const char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001B3;
  return hash;
}

}  // namespace puna
