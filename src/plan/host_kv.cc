// SPDX-License-Identifier: Apache-2.0
#include "plan/host_kv.h"

#include <algorithm>

#include "plan/byte_size.h"

namespace puna::plan {

Result<uint64_t> host_kv_bytes(std::string_view wanted, uint64_t room, uint64_t total) {
  if (wanted.empty()) return std::min(kDefaultHostKvBytes, room / kHostKvShare);
  if (wanted == "0") return uint64_t{0};
  auto bytes = parse_budget(wanted, total);
  if (!bytes.ok()) return std::move(bytes).error().with_context("--host-kv-memory");
  if (*bytes <= room) return *bytes;
  return Error(ErrorCode::kResourceExhausted,
               "--host-kv-memory {} is {}, and the process may take {}: lower it", wanted,
               format_bytes(*bytes), format_bytes(room));
}

}  // namespace puna::plan
