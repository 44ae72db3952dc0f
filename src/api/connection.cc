// SPDX-License-Identifier: Apache-2.0
#include "api/connection.h"

#include "api/io_thread.h"

namespace puna::api {
namespace {

using TimePoint = std::chrono::steady_clock::time_point;

// Bytes of further requests that are read while one is answered: enough to see the client leave.
constexpr size_t kReadAhead = 64 << 10;
// Larger bodies are parsed and tokenised on the work pool: this much takes about a millisecond.
constexpr size_t kInlineBodyBytes = 8 << 10;
// How long a client may go on sending what nobody wants, so that it can read why.
constexpr int32_t kLingerMs = 2'000;

// A chunk's size in front of it, filled in when it is known: one buffer holds the whole frame.
constexpr std::string_view kChunkHead = "0000000\r\n";
void set_chunk_size(std::string& frame, size_t at, size_t bytes) {
  for (size_t digit = kChunkHead.size() - 2; digit-- > 0; bytes >>= 4U) {
    frame[at + digit] = "0123456789abcdef"[bytes & 15U];
  }
}

}  // namespace

// Work on the pool. The I/O thread sets `done`.
struct Connection::Job {
  HttpRequest request;
  Answer answer;
  bool done = false;
};

asio::awaitable<void> Event::wait() {
  if (!set_) {
    error_code cancelled;
    timer_.expires_at(TimePoint::max());
    co_await timer_.async_wait(asio::redirect_error(asio::use_awaitable, cancelled));
  }
  set_ = false;
}

Connection::Connection(IoThread& thread, asio::ip::tcp::socket socket, bool refuse)
    : thread_(thread),
      service_(*thread.side().service),
      socket_(std::move(socket), thread.side().tls),
      news_(thread.context().get_executor()),
      room_(thread.context().get_executor()),
      reader_({.max_header_bytes = static_cast<size_t>(thread.side().config->max_header_bytes),
               .max_body_bytes = static_cast<uint64_t>(thread.side().config->max_body_bytes)}),
      refuse_(refuse),
      deadline_(TimePoint::max()) {
  auto& count = refuse_ ? *thread_.side().refusals : *thread_.side().connections;
  count.fetch_add(1);
  thread_.add(this);
}

Connection::~Connection() {
  release_body();
  thread_.remove(this);
  auto& count = refuse_ ? *thread_.side().refusals : *thread_.side().connections;
  count.fetch_sub(1);
}

void Connection::start() {
  auto self = shared_from_this();
  asio::co_spawn(
      thread_.context(), [self] { return self->run(); },
      [self](const std::exception_ptr& failure) {
        if (failure) self->close();  // out of memory: this connection alone ends
      });
}

asio::awaitable<void> Connection::run() {
  if (socket_.encrypted()) {
    set_deadline(thread_.side().config->header_timeout_ms);
    const error_code ec = co_await socket_.handshake();
    if (ec) {
      close();
      co_return;
    }
  }
  auto self = shared_from_this();
  asio::co_spawn(
      thread_.context(), [self] { return self->read_loop(); },
      [self](const std::exception_ptr& failure) {
        if (failure) self->close();
      });
  if (refuse_) {
    co_await refuse_and_close(503, "The server has too many connections; try again later.",
                              "too_many_connections");
  } else {
    while (co_await serve_one()) {
    }
  }
  co_await linger();
  close();
}

asio::awaitable<void> Connection::read_loop() {
  const size_t read_ahead =
      std::max(kReadAhead, 2 * static_cast<size_t>(thread_.side().config->max_header_bytes));
  for (;;) {
    const auto is_full = [&] { return !discard_ && input_.size() >= read_ahead; };
    while (is_full() && !generation_ && !gone_) co_await room_.wait();
    if (is_full()) {
      // Only who reads sees the client leave. So a client that sends this much before it got its
      // answer loses what it sent: the connection ends after the answer.
      discard_ = true;
      input_ = std::string();
    }
    error_code ec;
    const size_t got = co_await socket_.read_some(asio::buffer(read_buffer_), ec);
    if (ec) break;
    if (!discard_) input_.append(read_buffer_.data(), got);
    news_.notify();
  }
  client_gone();
}

asio::awaitable<bool> Connection::serve_one() {
  reader_.next();
  for (;;) {
    const Next next = co_await read_request();
    if (next == Next::kEnd) co_return false;
    if (next == Next::kNextRequest) co_return true;
    if (next == Next::kRequest) break;
  }
  const Answering answering(service_.status());
  const bool go_on = co_await answer_request();
  release_body();
  co_return go_on;
}

// Reads until there is a whole request that may be answered.
asio::awaitable<Connection::Next> Connection::read_request() {
  const ServerConfig& config = *thread_.side().config;
  phase_ = Phase::kIdle;
  set_deadline(request_id_.empty() ? config.header_timeout_ms : config.idle_timeout_ms);
  bool head_checked = false;
  for (;;) {
    feed_reader();
    if (phase_ == Phase::kIdle && reader_.started()) {
      phase_ = Phase::kReading;
      set_deadline(config.header_timeout_ms);
    }
    if (reader_.state() == HttpReader::State::kError) {
      co_await refuse_and_close(reader_.error_status(), reader_.error_message(), "invalid_http");
      co_return Next::kEnd;
    }
    if (reader_.state() != HttpReader::State::kHead && !head_checked) {
      head_checked = true;
      const Next next = co_await check_head();
      if (next != Next::kReadOn) co_return next;
    }
    if (!body_fits()) {
      co_await refuse_and_close(503,
                                "The server is reading too many large requests; try again later.",
                                "server_overloaded");
      co_return Next::kEnd;
    }
    if (reader_.state() == HttpReader::State::kDone) co_return Next::kRequest;
    if (gone_) co_return Next::kEnd;
    if (expired_) {
      if (phase_ == Phase::kReading) {
        co_await refuse_and_close(408, "The request took too long to arrive.", "request_timeout");
      }
      co_return Next::kEnd;
    }
    co_await news_.wait();
  }
}

// Answers from the head alone what can be; asks for the body of a client that waits to be asked.
asio::awaitable<Connection::Next> Connection::check_head() {
  const HttpRequest& request = reader_.request();
  request_id_ = request_id_for(request);
  const bool whole = reader_.state() == HttpReader::State::kDone;
  std::optional<HttpResponse> refusal = service_.refuse_head(request);
  if (refusal) {
    if (!whole) refusal->close = true;
    const bool go_on = co_await respond(std::move(*refusal));
    co_return go_on ? Next::kNextRequest : Next::kEnd;
  }
  if (request.expects_continue && !whole) {
    const bool written = co_await write("HTTP/1.1 100 Continue\r\n\r\n");
    if (!written) co_return Next::kEnd;
    set_deadline(thread_.side().config->header_timeout_ms);
  }
  co_return Next::kReadOn;
}

asio::awaitable<bool> Connection::answer_request() {
  phase_ = Phase::kAnswering;
  deadline_ = TimePoint::max();
  Answer answer = co_await make_answer();
  if (!answer.generation && !answer.response.body.empty()) {
    const bool go_on = co_await respond(std::move(answer.response));
    co_return go_on;
  }
  if (gone_ || !answer.generation) co_return false;
  generation_ = std::move(answer.generation);
  if (MaybeError error = generation_->submit(thread_.waker())) {
    generation_.reset();
    const bool go_on = co_await respond(error_response(*error));
    co_return go_on;
  }
  unanswered_.emplace(service_.status().engines[generation_->variant()],
                      service_.last_step_ns(generation_->variant()));
  room_.notify();  // from here on somebody must see the client leave
  bool go_on = false;
  if (generation_->streaming()) {
    go_on = co_await stream_answer();
  } else {
    go_on = co_await whole_answer();
  }
  unanswered_.reset();
  generation_.reset();  // cancels what still runs
  co_return go_on;
}

asio::awaitable<Answer> Connection::make_answer() {
  HttpRequest& request = reader_.request();
  if (std::optional<HttpResponse> refusal = service_.refuse_early(request)) {
    co_return Answer{std::move(*refusal), nullptr};
  }
  if (thread_.side().pool == nullptr || request.body.size() <= kInlineBodyBytes) {
    co_return service_.answer(request);
  }
  auto job = std::make_shared<Job>();
  std::swap(job->request.body, request.body);
  job->request.method = request.method;
  job->request.path = request.path;
  job->request.headers = request.headers;
  auto run_job = [job, self = shared_from_this()]() mutable {
    if (!self->service_.status().stopping.load()) job->answer = self->service_.answer(job->request);
    job->request = HttpRequest();
    // The last reference to the connection must die on its own thread.
    auto& context = self->thread_.context();
    asio::post(context, [job = std::move(job), self = std::move(self)] {
      job->done = true;
      self->news_.notify();
    });
  };
  if (!thread_.side().pool->post(std::move(run_job))) gone_ = true;
  while (!job->done && !gone_) co_await news_.wait();
  if (!job->done) co_return Answer();  // the job may still be at work on its own
  co_return std::move(job->answer);
}

asio::awaitable<bool> Connection::stream_answer() {
  const bool chunked = reader_.request().http_1_1;
  const bool reusable = chunked && keep_alive();
  service_.status().count_response(200);
  std::string frame = stream_head(request_id_, reusable, chunked, generation_->headers());
  for (bool finished = false; !finished;) {
    const size_t begin = frame.size();
    if (chunked) frame += kChunkHead;
    const size_t body = frame.size();
    finished = poll_generation(frame);
    if (frame.size() == body) {
      frame.resize(begin);
    } else if (chunked) {
      set_chunk_size(frame, begin, frame.size() - body);
      frame += "\r\n";
    }
    if (finished && chunked) frame += "0\r\n\r\n";
    if (!frame.empty()) {
      const bool written = co_await write(frame);
      if (!written || gone_) co_return false;
      frame.clear();
    } else if (!finished) {
      if (gone_) co_return false;
      co_await news_.wait();
    }
  }
  co_return reusable && !gone_ && !discard_;
}

asio::awaitable<bool> Connection::whole_answer() {
  std::string no_events;
  while (!poll_generation(no_events)) {
    if (gone_) co_return false;
    co_await news_.wait();
  }
  const bool go_on = co_await respond(generation_->take_response());
  co_return go_on;
}

bool Connection::poll_generation(std::string& events) {
  const bool finished = generation_->poll(events);
  if (finished || generation_->started()) unanswered_.reset();
  return finished;
}

asio::awaitable<bool> Connection::respond(HttpResponse response) {
  service_.status().count_response(response.status);
  const bool reusable = keep_alive() && !response.close;
  const std::string bytes =
      serialize(response, request_id_, reusable, reader_.request().method == "HEAD");
  const bool written = co_await write(bytes);
  co_return written&& reusable;
}

asio::awaitable<void> Connection::refuse_and_close(int status, std::string message,
                                                   std::string_view code) {
  if (request_id_.empty() || reader_.state() == HttpReader::State::kError) {
    request_id_ = request_id_for(reader_.request());
  }
  HttpResponse response = error_response({.status = status,
                                          .message = std::move(message),
                                          .param = {},
                                          .code = code,
                                          .retry_after_s = status == 503 ? 1.0 : 0.0});
  response.close = true;
  reader_.request().body = std::string();
  release_body();
  co_await respond(std::move(response));
}

// Closing at once with unread bytes would reset the connection, and the client would lose the
// answer.
asio::awaitable<void> Connection::linger() {
  phase_ = Phase::kClosing;
  discard_ = true;
  room_.notify();
  socket_.shutdown_send();
  set_deadline(kLingerMs);
  while (!gone_ && !expired_) co_await news_.wait();
}

asio::awaitable<bool> Connection::write(std::string_view data) {
  const auto before = deadline_;
  while (!data.empty()) {
    set_deadline(thread_.side().config->write_timeout_ms);
    writing_ = true;
    error_code ec;
    const size_t written = co_await socket_.write_some(data, ec);
    writing_ = false;
    if (ec) co_return false;
    data.remove_prefix(written);
  }
  deadline_ = before;
  co_return true;
}

void Connection::feed_reader() {
  while (!input_.empty()) {
    const HttpReader::State before = reader_.state();
    const size_t used = reader_.feed(input_);
    input_.erase(0, used);
    if (used == 0 && reader_.state() == before) break;
  }
  room_.notify();
}

bool Connection::body_fits() {
  auto& total = service_.status().body_bytes;
  const auto size = static_cast<int64_t>(reader_.request().body.size());
  const int64_t now = total.fetch_add(size - counted_body_) + size - counted_body_;
  counted_body_ = size;
  return size == 0 || now <= thread_.side().config->max_total_body_bytes;
}

void Connection::release_body() {
  service_.status().body_bytes.fetch_sub(counted_body_);
  counted_body_ = 0;
}

void Connection::set_deadline(int32_t after_ms) {
  expired_ = false;
  deadline_ = std::chrono::steady_clock::now() + std::chrono::milliseconds(after_ms);
}

bool Connection::keep_alive() const {
  return reader_.state() == HttpReader::State::kDone && reader_.request().keep_alive && !discard_ &&
         !service_.status().draining.load(std::memory_order_relaxed);
}

void Connection::client_gone() {
  gone_ = true;
  if (generation_) {
    service_.status().clients_gone.add();
    generation_->cancel();
  }
  news_.notify();
  room_.notify();
}

void Connection::on_engine_news() {
  if (generation_ && !writing_) news_.notify();
}

void Connection::on_time(TimePoint now) {
  if (now < deadline_) return;
  if (writing_) {
    service_.status().write_timeouts.add();
    close();
  } else if (phase_ == Phase::kHandshake) {
    close();
  } else {
    expired_ = true;
    news_.notify();
  }
}

void Connection::forgive(std::chrono::steady_clock::duration stopped) {
  if (deadline_ != TimePoint::max()) deadline_ += stopped;
}

void Connection::close() {
  socket_.close();
  client_gone();
}

}  // namespace puna::api
