// SPDX-License-Identifier: Apache-2.0
// One client connection: bytes out, a response in. Belongs to one event loop; one call at a time,
// but close() may come in between and ends what is pending with an error.
//
//   HttpConnection connection(context);
//   const auto connected = co_await connection.connect(endpoints);
//   const auto sent = co_await connection.send(http_request("POST", "/v1/completions", ...));
//   const auto head = co_await connection.read_head();
//   for (auto piece = co_await connection.read_body(); piece.ok() && !piece->empty(); ...)
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "load/asio.h"
#include "load/url.h"

namespace puna::load {

using Endpoints = std::vector<asio::ip::tcp::endpoint>;

// Blocks until the name is looked up. Errors: kUnavailable.
Result<Endpoints> resolve(const Url& url);

// A whole request; `body` brings its length and "application/json".
std::string http_request(std::string_view method, std::string_view path, const Url& url,
                         const Headers& headers, std::string_view body);

struct HttpHead {
  int status = 0;
  // retry-after-ms where there is one, for Retry-After has whole seconds only.
  std::optional<TimeNs> retry_after_ns;
  bool event_stream = false;
};

class HttpConnection {
 public:
  explicit HttpConnection(asio::io_context& context);
  ~HttpConnection();
  HttpConnection(const HttpConnection&) = delete;
  HttpConnection& operator=(const HttpConnection&) = delete;

  // Errors of all four: kUnavailable with the system's reason.
  asio::awaitable<Result<>> connect(const Endpoints& endpoints);
  asio::awaitable<Result<>> send(std::string_view bytes);
  asio::awaitable<Result<HttpHead>> read_head();
  // The next bytes of the body, valid until the next call; empty at its end.
  asio::awaitable<Result<std::string_view>> read_body();

  // The response was read to its end, and the server keeps the connection.
  bool reusable() const;
  // Nothing came of the response yet: a kept connection that the server closed meanwhile.
  bool untouched() const;
  // What the kernel keeps of unread bytes; before connect(). For readers that stall.
  void set_receive_buffer(int bytes) { receive_buffer_ = bytes; }
  void close();

 private:
  struct State;
  std::unique_ptr<State> state_;
  int receive_buffer_ = 0;  // 0: the system's
};

}  // namespace puna::load
