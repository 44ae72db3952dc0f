// SPDX-License-Identifier: Apache-2.0
// Text from a file, made safe for a one-line message: control characters and bytes outside ASCII
// are escaped, long text is cut.
#pragma once

#include <string>
#include <string_view>

namespace puna::formats {

// "text" in double quotes, e.g. `"blk.0.attn_q.weight"`.
std::string in_quotes(std::string_view text);

}  // namespace puna::formats
