// SPDX-License-Identifier: Apache-2.0
// Where the server is: http://host:port, with nothing after it but "/" or "/v1".
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace puna::load {

using Headers = std::vector<std::pair<std::string, std::string>>;

struct Url {
  std::string host;  // without brackets
  uint16_t port = 80;

  std::string host_header() const;  // "127.0.0.1:8080", "[::1]:80"
};

// Errors: not a URL, https (say how to measure without), a path.
Result<Url> parse_url(std::string_view text);

}  // namespace puna::load
