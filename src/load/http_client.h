// SPDX-License-Identifier: Apache-2.0
// Whole calls on kept connections, for coroutines of one event loop; and a blocking call for the
// few questions before a run.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "load/http_connection.h"

namespace puna::load {

struct HttpReply {
  HttpHead head;
  std::string body;
};

inline constexpr size_t kMaxReplyBytes = size_t{16} << 20U;

class ConnectionPool {
 public:
  ConnectionPool(asio::io_context& context, Endpoints endpoints)
      : context_(context), endpoints_(std::move(endpoints)) {}

  // A kept connection, or a new one that is not yet connected.
  std::unique_ptr<HttpConnection> take();
  void give_back(std::unique_ptr<HttpConnection> connection);

  // Sends, and reads the head; once more on a new connection when a kept one turns out closed.
  asio::awaitable<Result<HttpHead>> ask(std::unique_ptr<HttpConnection>& connection,
                                        std::string_view request);
  // ... and all of the body.
  asio::awaitable<Result<HttpReply>> call(std::string_view request);

 private:
  asio::io_context& context_;
  const Endpoints endpoints_;
  std::vector<std::unique_ptr<HttpConnection>> idle_;
};

// Blocks. Errors: kUnavailable after `timeout_ns` too.
Result<HttpReply> call_once(const Url& url, std::string_view request, TimeNs timeout_ns);

}  // namespace puna::load
