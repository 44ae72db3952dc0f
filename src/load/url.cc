// SPDX-License-Identifier: Apache-2.0
#include "load/url.h"

#include "load/text_numbers.h"

namespace puna::load {

std::string Url::host_header() const {
  const bool v6 = host.find(':') != std::string::npos;
  return fmt::format("{}{}{}:{}", v6 ? "[" : "", host, v6 ? "]" : "", port);
}

Result<Url> parse_url(std::string_view text) {
  constexpr std::string_view kScheme = "http://";
  if (text.starts_with("https://")) {
    return Error(ErrorCode::kUnsupported,
                 "{}: https is not supported: point it at the server's plain HTTP port, or at a "
                 "local proxy that ends TLS",
                 text);
  }
  const Error bad(ErrorCode::kInvalidArgument,
                  "\"{}\" is no server's address: use http://HOST:PORT, without a path", text);
  if (!text.starts_with(kScheme)) return bad;
  std::string_view rest = text.substr(kScheme.size());
  const size_t slash = rest.find('/');
  const std::string_view path = slash == std::string_view::npos ? "" : rest.substr(slash);
  if (!path.empty() && path != "/" && path != "/v1" && path != "/v1/") return bad;
  rest = rest.substr(0, slash);

  Url url;
  std::string_view port;
  if (rest.starts_with('[')) {
    const size_t close = rest.find(']');
    if (close == std::string_view::npos) return bad;
    url.host = std::string(rest.substr(1, close - 1));
    port = rest.substr(close + 1);
  } else {
    const size_t colon = rest.find(':');
    url.host = std::string(rest.substr(0, colon));
    port = colon == std::string_view::npos ? "" : rest.substr(colon);
  }
  if (url.host.empty() || url.host.find_first_of(" @?#\r\n") != std::string::npos) return bad;
  if (!port.empty()) {
    const auto number = port.front() == ':' ? parse_number<uint16_t>(port.substr(1)) : std::nullopt;
    if (!number || *number == 0) return bad;
    url.port = *number;
  }
  return url;
}

}  // namespace puna::load
