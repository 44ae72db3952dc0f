// SPDX-License-Identifier: Apache-2.0
// A TCP connection with or without TLS behind one type, so that the connection's code exists once.
// One read and one write may be pending at a time. Belongs to one I/O thread.
#pragma once

#include <optional>
#include <string_view>

#include "api/asio.h"

namespace puna::api {

class Socket {
 public:
  Socket(asio::ip::tcp::socket tcp, asio::ssl::context* tls) : tcp_(std::move(tcp)) {
    if (tls != nullptr) tls_.emplace(tcp_, *tls);
    error_code ignored;
    tcp_.set_option(asio::ip::tcp::no_delay(true), ignored);
  }

  bool encrypted() const { return tls_.has_value(); }

  asio::awaitable<error_code> handshake() {
    error_code ec;
    if (tls_) {
      co_await tls_->async_handshake(asio::ssl::stream_base::server,
                                     asio::redirect_error(asio::use_awaitable, ec));
    }
    co_return ec;
  }

  asio::awaitable<size_t> read_some(asio::mutable_buffer buffer, error_code& ec) {
    if (tls_) {
      co_return co_await tls_->async_read_some(buffer,
                                               asio::redirect_error(asio::use_awaitable, ec));
    }
    co_return co_await tcp_.async_read_some(buffer, asio::redirect_error(asio::use_awaitable, ec));
  }

  asio::awaitable<size_t> write_some(std::string_view data, error_code& ec) {
    const asio::const_buffer buffer(data.data(), data.size());
    if (tls_) {
      co_return co_await tls_->async_write_some(buffer,
                                                asio::redirect_error(asio::use_awaitable, ec));
    }
    co_return co_await tcp_.async_write_some(buffer, asio::redirect_error(asio::use_awaitable, ec));
  }

  void shutdown_send() {
    error_code ignored;
    tcp_.shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
  }
  // Pending reads and writes end with an error.
  void close() {
    error_code ignored;
    tcp_.close(ignored);
  }

 private:
  asio::ip::tcp::socket tcp_;
  std::optional<asio::ssl::stream<asio::ip::tcp::socket&>> tls_;
};

}  // namespace puna::api
