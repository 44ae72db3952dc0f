// SPDX-License-Identifier: Apache-2.0
// Bytes of a connection to HTTP requests, with every limit applied while the bytes come in: Beast's
// parser, and what RFC 9112 leaves to the server. One reader per connection; not thread-safe. Knows
// no sockets, so that the fuzz target http_request runs the code that the server runs.
//
//   HttpReader reader({.max_header_bytes = 16384, .max_body_bytes = 16 << 20});
//   size_t used = reader.feed(bytes);   // stops after the head, and after the message
//   if (reader.state() == HttpReader::State::kDone) { serve(reader.request()); reader.next(); }
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "api/http_message.h"

namespace puna::api {

class HttpReader {
 public:
  struct Limits {
    size_t max_header_bytes = 0;
    uint64_t max_body_bytes = 0;
  };
  enum class State : uint8_t {
    kHead,   // waiting for the rest of the head
    kBody,   // request() has its head; waiting for the rest of the body
    kDone,   // request() is whole
    kError,  // error_status() and error_message() say why; the connection can't go on
  };

  explicit HttpReader(const Limits& limits);
  ~HttpReader();

  // Takes from the front of `bytes` and returns how many. Bytes that are left must come again, with
  // more behind them, unless the state changed. No progress means: more bytes are needed.
  size_t feed(std::string_view bytes);

  State state() const { return state_; }
  bool started() const;  // some byte of the current message came
  HttpRequest& request() { return request_; }
  const HttpRequest& request() const { return request_; }
  int error_status() const { return error_status_; }
  const std::string& error_message() const { return error_message_; }

  // After kDone: forget the message and wait for the next.
  void next();

 private:
  class Parser;
  void fail(int status, std::string message);
  void finish_head();

  const Limits limits_;
  State state_ = State::kHead;
  size_t head_bytes_ = 0;
  HttpRequest request_;
  int error_status_ = 0;
  std::string error_message_;
  std::unique_ptr<Parser> parser_;
};

}  // namespace puna::api
