// SPDX-License-Identifier: Apache-2.0
#include "api/http_message.h"

#include <fmt/format.h>

#include <atomic>
#include <iterator>
#include <random>

namespace puna::api {
namespace {

constexpr size_t kMaxRequestIdBytes = 128;

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

uint64_t process_salt() {
  static const uint64_t kSalt = [] {
    std::random_device device;
    return (static_cast<uint64_t>(device()) << 32) ^ device();
  }();
  return kSalt;
}

}  // namespace

std::string_view HttpRequest::header(std::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (key == name) return value;
  }
  return {};
}

std::string_view status_text(int status) {
  switch (status) {
    case 100:
      return "Continue";
    case 200:
      return "OK";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 413:
      return "Content Too Large";
    case 417:
      return "Expectation Failed";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 503:
      return "Service Unavailable";
    case 505:
      return "HTTP Version Not Supported";
    default:
      return "Unknown";
  }
}

std::string serialize(const HttpResponse& response, std::string_view request_id, bool keep_alive,
                      bool head_only) {
  std::string out;
  out.reserve(256 + response.body.size());
  fmt::format_to(std::back_inserter(out),
                 "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nx-request-id: {}\r\n",
                 response.status, status_text(response.status), response.content_type,
                 response.body.size(), request_id);
  for (const auto& [name, value] : response.headers) {
    fmt::format_to(std::back_inserter(out), "{}: {}\r\n", name, value);
  }
  out += keep_alive && !response.close ? "Connection: keep-alive\r\n\r\n"
                                       : "Connection: close\r\n\r\n";
  if (!head_only) out += response.body;
  return out;
}

std::string stream_head(std::string_view request_id, bool keep_alive, bool chunked,
                        const HttpHeaders& headers) {
  std::string out = fmt::format(
      "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: "
      "no-cache\r\n"
      "X-Accel-Buffering: no\r\nx-request-id: {}\r\n{}Connection: {}\r\n",
      request_id, chunked ? "Transfer-Encoding: chunked\r\n" : "",
      keep_alive && chunked ? "keep-alive" : "close");
  for (const auto& [name, value] : headers) {
    fmt::format_to(std::back_inserter(out), "{}: {}\r\n", name, value);
  }
  return out + "\r\n";
}

std::string fresh_id() {
  static std::atomic<uint32_t> counter{0};
  const uint32_t count = counter.fetch_add(1, std::memory_order_relaxed);
  return fmt::format("{:016x}{:08x}", process_salt(), count);
}

std::string request_id_for(const HttpRequest& request) {
  const std::string_view given = request.header("x-request-id");
  bool printable = !given.empty() && given.size() <= kMaxRequestIdBytes;
  for (const char c : given) printable = printable && c > 0x20 && c < 0x7F;
  return printable ? std::string(given) : "req_" + fresh_id();
}

bool decode_target(std::string_view target, std::string& path) {
  if (!target.starts_with('/')) {  // absolute form: "http://host/path"
    const size_t scheme = target.find("://");
    if (scheme == std::string_view::npos) return false;
    const size_t slash = target.find('/', scheme + 3);
    target = slash == std::string_view::npos ? std::string_view("/") : target.substr(slash);
  }
  target = target.substr(0, target.find_first_of("?#"));
  path.clear();
  for (size_t i = 0; i < target.size(); ++i) {
    if (target[i] != '%') {
      path += target[i];
      continue;
    }
    if (i + 2 >= target.size()) return false;
    const int high = hex_value(target[i + 1]);
    const int low = hex_value(target[i + 2]);
    if (high < 0 || low < 0) return false;
    path += static_cast<char>(high * 16 + low);
    i += 2;
  }
  return true;
}

}  // namespace puna::api
