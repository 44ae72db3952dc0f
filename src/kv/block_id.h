// SPDX-License-Identifier: Apache-2.0
// KV memory is paged: a block holds the keys and values of kBlockTokens consecutive positions of
// one sequence, for all layers. Everyone but the backend knows a block by its id only.
#pragma once

#include <cstdint>

namespace puna::kv {

using BlockId = int32_t;
inline constexpr int32_t kBlockTokens = 16;
inline constexpr BlockId kNoBlock = -1;

// Blocks that hold `tokens` positions.
constexpr int32_t blocks_for_tokens(int64_t tokens) {
  return static_cast<int32_t>((tokens + kBlockTokens - 1) / kBlockTokens);
}

}  // namespace puna::kv
