// SPDX-License-Identifier: Apache-2.0
#include "api/server.h"

#include <fmt/format.h>

#include <list>

#include "api/asio.h"
#include "api/io_thread.h"
#include "base/quick_thread.h"

namespace puna::api {
namespace {

using asio::ip::tcp;
using namespace std::chrono_literals;

constexpr auto kTick = 100ms;  // how late a timeout may be noticed
// A tick that comes later than this shows that the process stood still, clients' time included.
constexpr auto kStoodStill = 1000ms;
constexpr auto kFinishPoll = 1ms;
// Clients over the limit that are being told so; beyond these they are just closed.
constexpr int kMaxRefusals = 64;
constexpr int kMaxAdminConnections = 64;
constexpr int kListenBacklog = 1024;

Result<tcp::endpoint> resolve(asio::io_context& context, const std::string& host, uint16_t port) {
  error_code ec;
  const auto address = asio::ip::make_address(host, ec);
  if (!ec) return tcp::endpoint(address, port);
  tcp::resolver resolver(context);
  const auto found = resolver.resolve(host, std::to_string(port), ec);
  if (ec || found.empty()) {
    return Error(ErrorCode::kInvalidArgument, "--host {}: no such address ({})", host,
                 ec.message());
  }
  return found.begin()->endpoint();
}

Result<tcp::acceptor> listen(asio::io_context& context, const ServerConfig& config, uint16_t port,
                             std::string_view flag) {
  ASSIGN_OR_RETURN(const tcp::endpoint endpoint, resolve(context, config.host, port));
  if (!endpoint.address().is_loopback() && config.api_keys.empty()) {
    return Error(ErrorCode::kInvalidArgument,
                 "--host {} can be reached from other machines: give --api-key KEY, or listen on "
                 "127.0.0.1",
                 config.host);
  }
  error_code ec;
  tcp::acceptor acceptor(context);
  acceptor.open(endpoint.protocol(), ec);
  if (!ec) acceptor.set_option(asio::socket_base::reuse_address(true), ec);
  if (!ec) acceptor.bind(endpoint, ec);
  if (!ec) acceptor.listen(kListenBacklog, ec);
  if (ec == asio::error::address_in_use) {
    return Error(ErrorCode::kIo, "{}:{} is in use by another program: choose another {}",
                 config.host, port, flag);
  }
  if (ec) {
    return Error(ErrorCode::kIo, "cannot listen on {}:{} (--host, {}): {}", config.host, port, flag,
                 ec.message());
  }
  return acceptor;
}

Result<std::unique_ptr<asio::ssl::context>> load_tls(const ServerConfig& config) {
  if (config.tls_cert.empty() && config.tls_key.empty())
    return std::unique_ptr<asio::ssl::context>();
  if (config.tls_cert.empty() || config.tls_key.empty()) {
    return Error(ErrorCode::kInvalidArgument, "--tls-cert and --tls-key belong together");
  }
  auto context = std::make_unique<asio::ssl::context>(asio::ssl::context::tls_server);
  error_code ec;
  context->set_options(asio::ssl::context::no_tlsv1 | asio::ssl::context::no_tlsv1_1, ec);
  context->use_certificate_chain_file(config.tls_cert, ec);
  if (ec) {
    return Error(ErrorCode::kInvalidArgument, "--tls-cert {}: {}", config.tls_cert, ec.message());
  }
  context->use_private_key_file(config.tls_key, asio::ssl::context::pem, ec);
  if (ec) {
    return Error(ErrorCode::kInvalidArgument, "--tls-key {}: {}", config.tls_key, ec.message());
  }
  return context;
}

// Accepts on the first of its threads and gives each connection to the thread that has fewest.
class Listener {
 public:
  Listener(std::vector<IoThread*> threads, tcp::acceptor acceptor, ServerStatus& status)
      : threads_(std::move(threads)),
        acceptor_(std::move(acceptor)),
        retry_(acceptor_.get_executor()),
        status_(status) {}

  uint16_t port() const { return acceptor_.local_endpoint().port(); }
  void start() {
    asio::co_spawn(
        acceptor_.get_executor(), [this] { return accept_loop(); }, asio::detached);
  }
  void stop() {  // any thread; the threads must run until they end by themselves
    asio::post(acceptor_.get_executor(), [this] {
      error_code ignored;
      acceptor_.close(ignored);
      retry_.cancel();
    });
  }

 private:
  asio::awaitable<void> accept_loop() {
    while (acceptor_.is_open()) {
      IoThread* thread = threads_.front();
      for (IoThread* other : threads_) thread = other->load() < thread->load() ? other : thread;
      error_code ec;
      tcp::socket socket = co_await acceptor_.async_accept(
          thread->context(), asio::redirect_error(asio::use_awaitable, ec));
      if (!ec) {
        status_.connections_accepted.add();
        // On the connection's own thread from here on.
        asio::post(thread->context(), [thread, accepted = std::move(socket)]() mutable {
          thread->adopt(std::move(accepted));
        });
      } else if (acceptor_.is_open()) {  // out of descriptors, most likely: it passes
        retry_.expires_after(100ms);
        co_await retry_.async_wait(asio::redirect_error(asio::use_awaitable, ec));
      }
    }
  }

  const std::vector<IoThread*> threads_;
  tcp::acceptor acceptor_;
  asio::steady_timer retry_;
  ServerStatus& status_;
};

}  // namespace

IoThread::IoThread(const Side& side, EventWaker* waker)
    : side_(side),
      waker_(waker),
      guard_(asio::make_work_guard(context_)),
      engine_news_(context_, ::dup(waker->fd())),
      tick_(context_) {}

IoThread::~IoThread() { EventWaker::release(waker_); }

void IoThread::start() {
  asio::co_spawn(
      context_, [this] { return watch_engine(); }, asio::detached);
  asio::co_spawn(
      context_, [this] { return watch_time(); }, asio::detached);
  thread_ = std::thread([this] {
    make_thread_quick();
    context_.run();
  });
}

void IoThread::stop() {
  asio::post(context_, [this] {
    stopping_ = true;
    for (Connection* connection : connections_) connection->close();
    error_code ignored;
    engine_news_.close(ignored);
    tick_.cancel();
    guard_.reset();
  });
}

void IoThread::join() {
  if (thread_.joinable()) thread_.join();
}

void IoThread::adopt(tcp::socket socket) {
  if (stopping_) return;
  const bool refuse = side_.connections->load() >= side_.max_connections;
  if (refuse && side_.refusals->load() >= kMaxRefusals) return;
  if (refuse) side_.service->status().connections_refused.add();
  std::make_shared<Connection>(*this, std::move(socket), refuse)->start();
}

void IoThread::add(Connection* connection) {
  connections_.insert(connection);
  load_.fetch_add(1, std::memory_order_relaxed);
}

void IoThread::remove(Connection* connection) {
  connections_.erase(connection);
  load_.fetch_sub(1, std::memory_order_relaxed);
}

asio::awaitable<void> IoThread::watch_engine() {
  for (;;) {
    error_code ec;
    co_await engine_news_.async_wait(asio::posix::stream_descriptor::wait_read,
                                     asio::redirect_error(asio::use_awaitable, ec));
    if (ec) co_return;
    waker_->clear();
    for (Connection* connection : connections_) connection->on_engine_news();
  }
}

asio::awaitable<void> IoThread::watch_time() {
  while (!stopping_) {
    error_code ec;
    const auto due = std::chrono::steady_clock::now() + kTick;
    tick_.expires_at(due);
    co_await tick_.async_wait(asio::redirect_error(asio::use_awaitable, ec));
    const auto now = std::chrono::steady_clock::now();
    if (now - due > kStoodStill) {
      for (Connection* connection : connections_) connection->forgive(now - due);
    }
    for (Connection* connection : connections_) connection->on_time(now);
  }
}

struct Server::State {
  State(const ServerConfig& server_config, const ServedModel& served)
      : config(server_config),
        status(served.engines().size()),
        canary(served.engines(), status, server_config.canary_after_ms * kNsPerMs),
        service(served, config, status, Service::Side::kServing, &canary),
        admin_service(served, config, status, Service::Side::kAdmin, &canary) {}

  Result<> add_threads(const Side& side, int count);

  const ServerConfig config;
  ServerStatus status;
  Canary canary;
  Service service;
  Service admin_service;
  std::unique_ptr<asio::ssl::context> tls;
  std::atomic<int> refusals{0};
  std::atomic<int> admin_connections{0};
  std::atomic<int> admin_refusals{0};
  std::list<IoThread> threads;  // serving threads, then the admin thread
  std::unique_ptr<WorkPool> pool;
  std::unique_ptr<Listener> listener;
  std::unique_ptr<Listener> admin_listener;
};

Result<> Server::State::add_threads(const Side& side, int count) {
  for (int i = 0; i < count; ++i) {
    ASSIGN_OR_RETURN(EventWaker * waker, EventWaker::acquire());
    threads.emplace_back(side, waker);
  }
  return Ok{};
}

Server::Server(std::unique_ptr<State> state) : state_(std::move(state)) {}
Server::~Server() { stop(); }

Result<std::unique_ptr<Server>> Server::start(const ServerConfig& config,
                                              const ServedModel& model) {
  auto state = std::make_unique<State>(config, model);
  State& s = *state;
  ASSIGN_OR_RETURN(s.tls, load_tls(config));
  s.pool = std::make_unique<WorkPool>(std::max(config.work_threads, 1));
  RETURN_IF_ERROR(s.add_threads({.config = &s.config,
                                 .service = &s.service,
                                 .pool = s.pool.get(),
                                 .tls = s.tls.get(),
                                 .connections = &s.status.connections,
                                 .refusals = &s.refusals,
                                 .max_connections = config.max_connections},
                                std::max(config.io_threads, 1)));
  std::vector<IoThread*> serving;
  for (IoThread& thread : s.threads) serving.push_back(&thread);
  ASSIGN_OR_RETURN(tcp::acceptor acceptor,
                   listen(serving.front()->context(), config, config.port, "--port"));
  s.listener = std::make_unique<Listener>(std::move(serving), std::move(acceptor), s.status);
  if (config.admin_port >= 0) {
    RETURN_IF_ERROR(s.add_threads({.config = &s.config,
                                   .service = &s.admin_service,
                                   .connections = &s.admin_connections,
                                   .refusals = &s.admin_refusals,
                                   .max_connections = kMaxAdminConnections},
                                  1));
    IoThread* admin = &s.threads.back();
    ASSIGN_OR_RETURN(
        tcp::acceptor admin_acceptor,
        listen(admin->context(), config, static_cast<uint16_t>(config.admin_port), "--admin-port"));
    s.admin_listener = std::make_unique<Listener>(std::vector<IoThread*>{admin},
                                                  std::move(admin_acceptor), s.status);
    s.admin_listener->start();
  }
  s.listener->start();
  for (IoThread& thread : s.threads) thread.start();
  return std::unique_ptr<Server>(new Server(std::move(state)));
}

uint16_t Server::port() const { return state_->listener->port(); }
uint16_t Server::admin_port() const {
  return state_->admin_listener ? state_->admin_listener->port() : uint16_t{0};
}

void Server::set_ready(bool ready) { state_->status.ready.store(ready); }

void Server::drain() { state_->status.draining.store(true); }

bool Server::finish(TimeNs timeout_ns) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::nanoseconds(timeout_ns);
  while (state_->status.answering.load() > 0) {
    if (std::chrono::steady_clock::now() >= deadline) return false;
    std::this_thread::sleep_for(kFinishPoll);
  }
  return true;
}

void Server::stop() {
  if (state_->status.stopping.exchange(true)) return;
  state_->status.draining.store(true);
  state_->listener->stop();
  if (state_->admin_listener) state_->admin_listener->stop();
  state_->pool->stop();  // first: its last jobs post to the threads
  for (IoThread& thread : state_->threads) thread.stop();
  for (IoThread& thread : state_->threads) thread.join();
}

}  // namespace puna::api
