// SPDX-License-Identifier: Apache-2.0
#include "api/http_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/beast/http/basic_parser.hpp>
#include <boost/beast/http/error.hpp>
#include <limits>

namespace puna::api {
namespace {

namespace http = boost::beast::http;
using boost::beast::error_code;
using boost::beast::string_view;

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return result;
}

}  // namespace

// Hands the parts of a message to the request. Bodies grow with the bytes that really came: a
// Content-Length alone reserves nothing.
class HttpReader::Parser final : public http::basic_parser<true> {
 public:
  explicit Parser(HttpRequest& request) : request_(&request) {}
  const std::string& target() const { return target_; }

 private:
  void on_request_impl(http::verb, string_view method, string_view target, int version,
                       error_code&) override {
    request_->method.assign(method.data(), method.size());
    target_.assign(target.data(), target.size());
    request_->http_1_1 = version >= 11;
  }
  void on_response_impl(int, string_view, int, error_code&) override {}
  void on_field_impl(http::field, string_view name, string_view value, error_code&) override {
    if (is_header_done()) return;  // trailers say nothing here
    request_->headers.emplace_back(lower({name.data(), name.size()}),
                                   std::string(value.data(), value.size()));
  }
  void on_header_impl(error_code&) override {}
  void on_body_init_impl(const boost::optional<std::uint64_t>&, error_code&) override {}
  size_t on_body_impl(string_view body, error_code&) override {
    request_->body.append(body.data(), body.size());
    return body.size();
  }
  void on_chunk_header_impl(std::uint64_t, string_view, error_code&) override {}
  size_t on_chunk_body_impl(std::uint64_t, string_view body, error_code&) override {
    request_->body.append(body.data(), body.size());
    return body.size();
  }
  void on_finish_impl(error_code&) override {}

  HttpRequest* request_;
  std::string target_;
};

HttpReader::HttpReader(const Limits& limits) : limits_(limits) { next(); }
HttpReader::~HttpReader() = default;

void HttpReader::next() {
  request_ = HttpRequest();
  head_bytes_ = 0;
  state_ = State::kHead;
  parser_ = std::make_unique<Parser>(request_);
  // Beast counts per call, so feed() counts itself; this one only must not be in the way.
  parser_->header_limit(std::numeric_limits<std::uint32_t>::max());
  parser_->body_limit(limits_.max_body_bytes);
}

bool HttpReader::started() const { return parser_->got_some(); }

void HttpReader::fail(int status, std::string message) {
  state_ = State::kError;
  error_status_ = status;
  error_message_ = std::move(message);
}

size_t HttpReader::feed(std::string_view bytes) {
  if (bytes.empty() || state_ == State::kDone || state_ == State::kError) return 0;
  error_code ec;
  const size_t used = parser_->put(boost::asio::const_buffer(bytes.data(), bytes.size()), ec);
  if (state_ == State::kHead) head_bytes_ += used;
  const bool head_open = !parser_->is_header_done();
  const size_t waiting = ec == http::error::need_more ? bytes.size() - used : 0;
  if ((head_open && head_bytes_ + waiting > limits_.max_header_bytes) ||
      (state_ == State::kHead && head_bytes_ > limits_.max_header_bytes)) {
    fail(431, fmt::format("the request's head is larger than {} bytes", limits_.max_header_bytes));
  } else if (ec == http::error::body_limit) {
    fail(413, fmt::format("the request's body is larger than {} bytes", limits_.max_body_bytes));
  } else if (ec == http::error::bad_version) {
    fail(505, "the server speaks HTTP/1.1 and HTTP/1.0 only");
  } else if (ec && ec != http::error::need_more) {
    fail(400, fmt::format("not a valid HTTP request: {}", ec.message()));
  } else if (waiting > limits_.max_header_bytes) {  // an endless chunk extension or trailer
    fail(400, "not a valid HTTP request: a line of the chunked body is too long");
  } else if (!head_open) {
    if (state_ == State::kHead) finish_head();
    if (state_ == State::kBody && parser_->is_done()) state_ = State::kDone;
  }
  return used;
}

void HttpReader::finish_head() {
  state_ = State::kBody;
  request_.keep_alive = parser_->keep_alive();
  if (!decode_target(parser_->target(), request_.path)) {
    return fail(400, "not a valid HTTP request: the target is no path");
  }
  size_t hosts = 0;
  for (const auto& [name, value] : request_.headers) {
    if (name == "host") ++hosts;
    // Any other coding would leave it to guesses where the body ends.
    if (name == "transfer-encoding" && lower(value) != "chunked") {
      return fail(400, "not a valid HTTP request: the only transfer coding is \"chunked\"");
    }
  }
  if (request_.http_1_1 && hosts != 1) {
    return fail(400, "not a valid HTTP request: HTTP/1.1 needs one Host header");
  }
  const std::string expect = lower(request_.header("expect"));
  request_.expects_continue = expect == "100-continue" && request_.http_1_1;
  if (!expect.empty() && !request_.expects_continue && request_.http_1_1) {
    return fail(417, "the only expectation that can be met is 100-continue");
  }
}

}  // namespace puna::api
