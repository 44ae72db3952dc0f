// SPDX-License-Identifier: Apache-2.0
// Byte counts as people write them: "512MiB", "1.5GB", "80%".
//
//   ASSIGN_OR_RETURN(uint64_t budget, parse_budget("80%", system.total));
//   std::string text = format_bytes(budget);   // "18.8 GiB"
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace puna::plan {

// Suffixes: none or B, KiB MiB GiB TiB (powers of 1024), KB MB GB TB (powers of 1000), or % of
// `total`.
Result<uint64_t> parse_budget(std::string_view text, uint64_t total);

// "512 B", "94.3 MiB", "1.5 GiB".
std::string format_bytes(uint64_t bytes);

}  // namespace puna::plan
