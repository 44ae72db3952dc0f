// SPDX-License-Identifier: Apache-2.0
// One client connection: requests one after the other, each answered before the next is looked at.
// Two coroutines on the connection's I/O thread: read_loop() takes bytes in (and so notices at once
// that the client left), run() works on them. Whoever has news for run() calls news_.notify().
//
// Back-pressure is an unfinished write: while a client does not read, its tokens stay in the
// engine's channels, and go out together with the next write.
#pragma once

#include <array>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "api/asio.h"
#include "api/http_reader.h"
#include "api/service.h"
#include "api/socket.h"

namespace puna::api {

class IoThread;

// Wakes the one coroutine that waits for it. A notification before wait() is not lost.
class Event {
 public:
  explicit Event(const asio::any_io_executor& executor) : timer_(executor) {}
  void notify() {
    set_ = true;
    timer_.cancel();
  }
  asio::awaitable<void> wait();

 private:
  asio::steady_timer timer_;
  bool set_ = false;
};

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  // `refuse`: one connection too many; it is told so and closed.
  Connection(IoThread& thread, asio::ip::tcp::socket socket, bool refuse);
  ~Connection();
  void start();

  // From the I/O thread's loops:
  void on_engine_news();
  void on_time(std::chrono::steady_clock::time_point now);
  // The process stood still for so long (SIGSTOP, a sleeping machine): no client's fault.
  void forgive(std::chrono::steady_clock::duration stopped);
  void close();

 private:
  enum class Phase : uint8_t { kHandshake, kIdle, kReading, kAnswering, kClosing };
  enum class Next : uint8_t { kRequest, kReadOn, kNextRequest, kEnd };
  struct Job;

  asio::awaitable<void> run();
  asio::awaitable<void> read_loop();
  // The bool of these is false when the connection ends.
  asio::awaitable<bool> serve_one();
  asio::awaitable<Next> read_request();
  asio::awaitable<Next> check_head();
  asio::awaitable<bool> answer_request();
  asio::awaitable<Answer> make_answer();
  asio::awaitable<bool> stream_answer();
  asio::awaitable<bool> whole_answer();
  asio::awaitable<bool> respond(HttpResponse response);
  asio::awaitable<void> refuse_and_close(int status, std::string message, std::string_view code);
  asio::awaitable<void> linger();
  asio::awaitable<bool> write(std::string_view data);

  bool poll_generation(std::string& events);
  void feed_reader();
  bool body_fits();
  void release_body();
  void set_deadline(int32_t after_ms);
  bool keep_alive() const;
  void client_gone();

  IoThread& thread_;
  const Service& service_;
  Socket socket_;
  Event news_;
  Event room_;  // for read_loop(): input_ was used up
  HttpReader reader_;
  std::array<char, 8192> read_buffer_{};
  std::string input_;  // read, and not yet taken by the reader
  bool refuse_;
  bool discard_ = false;  // what still comes in is thrown away
  bool gone_ = false;     // nothing more will come: the client closed, or we did
  bool expired_ = false;  // the deadline passed
  bool writing_ = false;
  Phase phase_ = Phase::kHandshake;
  std::chrono::steady_clock::time_point deadline_;
  std::string request_id_;
  int64_t counted_body_ = 0;  // this connection's part of ServerStatus::body_bytes
  std::unique_ptr<Generation> generation_;
  std::optional<Unanswered> unanswered_;
};

}  // namespace puna::api
