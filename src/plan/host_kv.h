// SPDX-License-Identifier: Apache-2.0
// Host memory for the KV blocks of a GPU's paused requests: what --host-kv-memory comes to.
//
//   ASSIGN_OR_RETURN(uint64_t bytes, host_kv_bytes("8GiB", system.available, system.total));
#pragma once

#include <cstdint>
#include <string_view>

#include "base/result.h"

namespace puna::plan {

// Without the flag: so much (vLLM's swap space was as large) ...
inline constexpr uint64_t kDefaultHostKvBytes = uint64_t{4} << 30;
// ... in at most this share of the memory that the process may take.
inline constexpr uint64_t kHostKvShare = 4;

// `wanted`: as parse_budget() takes it, a per cent of `total`; "0": none; empty: the default.
// `room`: what the process may take, --memory-budget or what is available. Errors:
// kInvalidArgument for no size, kResourceExhausted for more than `room`.
Result<uint64_t> host_kv_bytes(std::string_view wanted, uint64_t room, uint64_t total);

}  // namespace puna::plan
