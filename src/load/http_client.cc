// SPDX-License-Identifier: Apache-2.0
#include "load/http_client.h"

namespace puna::load {
namespace {

constexpr size_t kMaxIdle = 1024;

asio::awaitable<Result<std::string>> read_all(HttpConnection& connection) {
  std::string body;
  for (;;) {
    const Result<std::string_view> piece = co_await connection.read_body();
    if (!piece.ok()) co_return piece.error();
    if (piece->empty()) co_return body;
    if (body.size() + piece->size() > kMaxReplyBytes) {
      co_return Error(ErrorCode::kUnavailable, "the reply is longer than {} bytes", kMaxReplyBytes);
    }
    body += *piece;
  }
}

}  // namespace

std::unique_ptr<HttpConnection> ConnectionPool::take() {
  if (idle_.empty()) return std::make_unique<HttpConnection>(context_);
  std::unique_ptr<HttpConnection> connection = std::move(idle_.back());
  idle_.pop_back();
  return connection;
}

void ConnectionPool::give_back(std::unique_ptr<HttpConnection> connection) {
  if (connection->reusable() && idle_.size() < kMaxIdle) idle_.push_back(std::move(connection));
}

asio::awaitable<Result<HttpHead>> ConnectionPool::ask(std::unique_ptr<HttpConnection>& connection,
                                                      std::string_view request) {
  bool kept = connection->reusable();
  for (;;) {
    if (!kept) {
      const Result<> connected = co_await connection->connect(endpoints_);
      if (!connected.ok()) co_return connected.error();
    }
    const Result<> sent = co_await connection->send(request);
    // A server may answer and close before it has read all: look for its answer anyway.
    const Result<HttpHead> head = co_await connection->read_head();
    if (head.ok()) co_return head;
    if (!kept || !connection->untouched()) co_return sent.ok() ? head.error() : sent.error();
    kept = false;
  }
}

asio::awaitable<Result<HttpReply>> ConnectionPool::call(std::string_view request) {
  std::unique_ptr<HttpConnection> connection = take();
  const Result<HttpHead> head = co_await ask(connection, request);
  if (!head.ok()) co_return head.error();
  Result<std::string> body = co_await read_all(*connection);
  if (!body.ok()) co_return body.error();
  give_back(std::move(connection));
  co_return HttpReply{*head, std::move(body).value()};
}

Result<HttpReply> call_once(const Url& url, std::string_view request, TimeNs timeout_ns) {
  ASSIGN_OR_RETURN(Endpoints endpoints, resolve(url));
  asio::io_context context;
  ConnectionPool pool(context, std::move(endpoints));
  Result<HttpReply> reply = Error(ErrorCode::kUnavailable, "no answer from {} within {} s",
                                  url.host_header(), timeout_ns / kNsPerSecond);
  asio::co_spawn(
      context,
      [&]() -> asio::awaitable<void> {
        Result<HttpReply> result = co_await pool.call(request);
        reply = std::move(result);
      },
      asio::detached);
  context.run_for(std::chrono::nanoseconds(timeout_ns));
  return reply;
}

}  // namespace puna::load
