// SPDX-License-Identifier: Apache-2.0
// The most memory that a client's JSON may take as a tree: the API's parser stops there, and the
// memory plan counts it. A body of tiny values takes many times its own size.
#pragma once

#include <algorithm>
#include <cstdint>

namespace puna {

constexpr uint64_t json_tree_limit(uint64_t body_bytes) {
  constexpr uint64_t kLeast = uint64_t{16} << 10;
  constexpr uint64_t kShort = uint64_t{4} << 20;
  return std::min(kLeast + 32 * body_bytes, kShort + 8 * body_bytes);
}

}  // namespace puna
