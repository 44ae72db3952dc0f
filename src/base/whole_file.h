// SPDX-License-Identifier: Apache-2.0
// A file that is there whole or not at all.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>

#include "base/result.h"

namespace puna {

// Replaces `path` at once, when all bytes are on disk. Errors: kIo with the path; what was written
// is removed then, and an older file is as it was.
Result<> write_whole_file(const std::string& path, std::string_view text, mode_t mode = 0644);

}  // namespace puna
