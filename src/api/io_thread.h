// SPDX-License-Identifier: Apache-2.0
// One I/O thread: an event loop, its connections, and the eventfd by which the engine wakes it. A
// connection stays on its thread, so nothing in it needs a lock.
#pragma once

#include <atomic>
#include <thread>
#include <unordered_set>

#include "api/asio.h"
#include "api/connection.h"
#include "api/event_waker.h"
#include "api/server.h"
#include "api/service.h"
#include "api/work_pool.h"

namespace puna::api {

// What the connections of one listener share. Outlives its threads.
struct Side {
  const ServerConfig* config = nullptr;
  const Service* service = nullptr;
  WorkPool* pool = nullptr;                 // null: everything is answered on the I/O thread
  asio::ssl::context* tls = nullptr;        // null: plain
  std::atomic<int>* connections = nullptr;  // open now
  std::atomic<int>* refusals = nullptr;     // being told that they are one too many
  int max_connections = 0;
};

class IoThread {
 public:
  // `waker` is released by the destructor.
  IoThread(const Side& side, EventWaker* waker);
  ~IoThread();

  void start();
  void stop();  // any thread: closes all connections; the thread ends when they are gone
  void join();

  // On this thread. Takes a socket that the listener accepted for context().
  void adopt(asio::ip::tcp::socket socket);

  asio::io_context& context() { return context_; }
  const Side& side() const { return side_; }
  EventWaker* waker() const { return waker_; }
  int load() const { return load_.load(std::memory_order_relaxed); }

  void add(Connection* connection);
  void remove(Connection* connection);

 private:
  asio::awaitable<void> watch_engine();
  asio::awaitable<void> watch_time();

  const Side side_;
  EventWaker* const waker_;
  asio::io_context context_{1};
  asio::executor_work_guard<asio::io_context::executor_type> guard_;
  asio::posix::stream_descriptor engine_news_;
  asio::steady_timer tick_;
  std::unordered_set<Connection*> connections_;
  std::atomic<int> load_{0};
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace puna::api
