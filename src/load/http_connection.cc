// SPDX-License-Identifier: Apache-2.0
#include "load/http_connection.h"

#include <array>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/buffer_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <limits>

#include "load/text_numbers.h"

namespace puna::load {
namespace {

namespace http = boost::beast::http;

constexpr size_t kReadBytes = 16384;
constexpr uint32_t kMaxHeadBytes = 65536;
constexpr double kMaxRetryAfterS = 86400;

Error unavailable(std::string_view what, const error_code& ec) {
  return Error(ErrorCode::kUnavailable, "{}: {}", what, ec.message());
}

std::optional<TimeNs> wait_of(std::string_view text, double unit_s) {
  const auto number = parse_number<double>(text);
  if (!number || !(*number >= 0) || *number * unit_s > kMaxRetryAfterS) return std::nullopt;
  return static_cast<TimeNs>(*number * unit_s * kNsPerSecond);
}

template <typename Message>
HttpHead head_of(const Message& message) {
  HttpHead head;
  head.status = static_cast<int>(message.result_int());
  const auto field = [&](std::string_view name) {
    const auto found = message.find(boost::beast::string_view(name.data(), name.size()));
    return found == message.end() ? std::string_view()
                                  : std::string_view(found->value().data(), found->value().size());
  };
  head.retry_after_ns = wait_of(field("retry-after-ms"), 1e-3);
  if (!head.retry_after_ns) head.retry_after_ns = wait_of(field("Retry-After"), 1);
  head.event_stream = field("Content-Type").starts_with("text/event-stream");
  return head;
}

}  // namespace

Result<Endpoints> resolve(const Url& url) {
  asio::io_context context;
  asio::ip::tcp::resolver resolver(context);
  error_code ec;
  const auto found = resolver.resolve(url.host, std::to_string(url.port), ec);
  if (ec) return unavailable(url.host_header(), ec);
  return Endpoints(found.begin(), found.end());
}

std::string http_request(std::string_view method, std::string_view path, const Url& url,
                         const Headers& headers, std::string_view body) {
  std::string out = fmt::format("{} {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: puna-bench\r\n", method,
                                path, url.host_header());
  for (const auto& [name, value] : headers) out += fmt::format("{}: {}\r\n", name, value);
  if (!body.empty() || method == "POST") {
    out += fmt::format("Content-Type: application/json\r\nContent-Length: {}\r\n", body.size());
  }
  return out.append("\r\n").append(body);
}

struct HttpConnection::State {
  using Parser = http::response_parser<http::buffer_body>;

  explicit State(asio::io_context& context) : socket(context) {}

  asio::ip::tcp::socket socket;
  boost::beast::flat_buffer input;
  std::optional<Parser> parser;
  std::array<char, kReadBytes> piece{};
};

HttpConnection::HttpConnection(asio::io_context& context)
    : state_(std::make_unique<State>(context)) {}
HttpConnection::~HttpConnection() = default;

asio::awaitable<Result<>> HttpConnection::connect(const Endpoints& endpoints) {
  error_code ec = asio::error::host_not_found;
  for (const auto& endpoint : endpoints) {
    close();
    state_->socket.open(endpoint.protocol(), ec);
    if (ec) continue;
    if (receive_buffer_ > 0) {
      state_->socket.set_option(asio::socket_base::receive_buffer_size(receive_buffer_), ec);
    }
    co_await state_->socket.async_connect(endpoint, asio::redirect_error(asio::use_awaitable, ec));
    if (!ec) break;
  }
  if (ec) co_return unavailable("connecting", ec);
  state_->socket.set_option(asio::ip::tcp::no_delay(true), ec);
  co_return Ok{};
}

asio::awaitable<Result<>> HttpConnection::send(std::string_view bytes) {
  state_->parser.emplace();
  state_->parser->header_limit(kMaxHeadBytes);
  state_->parser->body_limit(std::numeric_limits<uint64_t>::max());
  state_->input.clear();
  error_code ec;
  co_await asio::async_write(state_->socket, asio::const_buffer(bytes.data(), bytes.size()),
                             asio::redirect_error(asio::use_awaitable, ec));
  if (ec) co_return unavailable("sending", ec);
  co_return Ok{};
}

asio::awaitable<Result<HttpHead>> HttpConnection::read_head() {
  error_code ec;
  co_await http::async_read_header(state_->socket, state_->input, *state_->parser,
                                   asio::redirect_error(asio::use_awaitable, ec));
  if (ec) co_return unavailable("reading the head", ec);
  co_return head_of(state_->parser->get());
}

asio::awaitable<Result<std::string_view>> HttpConnection::read_body() {
  State& state = *state_;
  while (!state.parser->is_done()) {
    auto& body = state.parser->get().body();
    body.data = state.piece.data();
    body.size = state.piece.size();
    error_code ec;
    co_await http::async_read_some(state.socket, state.input, *state.parser,
                                   asio::redirect_error(asio::use_awaitable, ec));
    if (ec && ec != http::error::need_buffer) co_return unavailable("reading the body", ec);
    const size_t size = state.piece.size() - body.size;
    if (size > 0) co_return std::string_view(state.piece.data(), size);
  }
  co_return std::string_view();
}

bool HttpConnection::reusable() const {
  const auto& parser = state_->parser;
  return parser && parser->is_done() && parser->keep_alive() && state_->input.size() == 0;
}

bool HttpConnection::untouched() const { return !state_->parser || !state_->parser->got_some(); }

void HttpConnection::close() {
  error_code ignored;
  state_->socket.close(ignored);
}

}  // namespace puna::load
