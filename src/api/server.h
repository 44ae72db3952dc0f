// SPDX-License-Identifier: Apache-2.0
// The HTTP server: OpenAI's API on the serving port, probes and metrics on the serving port and on
// an admin listener of its own thread that never waits for the engine. Owned by `puna serve`.
//
//   ASSIGN_OR_RETURN(auto server, Server::start(config, {engine, tokenizer, chat_template, ...}));
//   ... SIGTERM ...
//   server->drain();          // /ready says 503, no new work; then engine.drain(timeout); then
//   server->finish(timeout);  // the last events are written
//   server->stop();
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "api/api_keys.h"
#include "base/result.h"
#include "engine/engine.h"
#include "model/chat_template.h"
#include "model/tokenizer.h"
#include "route/policy.h"

namespace puna::api {

struct ServerConfig {
  std::string host = "127.0.0.1";
  uint16_t port = 8080;                  // 0 picks a free one
  int32_t admin_port = -1;               // -1: no admin listener; 0 picks a free one
  std::vector<KeyPolicy> api_keys = {};  // empty: no key needed, and loopback only
  std::string tls_cert = {};             // PEM files; both or neither
  std::string tls_key = {};
  int32_t io_threads = 2;
  int32_t max_connections = 1024;
  int64_t max_body_bytes = 16 << 20;         // larger: 413
  int64_t max_total_body_bytes = 256 << 20;  // of all requests being read: more get 503
  int32_t max_header_bytes = 16 << 10;       // larger: 431
  int32_t work_threads = 2;                  // parse and tokenise long bodies
  int32_t header_timeout_ms = 10'000;        // a request's head and body must arrive in this time
  int32_t idle_timeout_ms = 75'000;          // keep-alive
  int32_t stall_timeout_ms = 60'000;  // no step for this long with work to do: /health says 503
  int32_t canary_after_ms = 10'000;   // idle for so long: /ready has a step made
  int32_t write_timeout_ms = 30'000;  // a client that does not read for this long is dropped
};

// What the server's side holds now, for the memory ledger.
struct HostUse {
  int64_t connections = 0;
  int64_t body_bytes = 0;  // of requests that are being read
};

// What the server serves; everything outlives it.
struct ServedModel {
  engine::Engine* engine = nullptr;  // of several variants, the base's
  const model::Tokenizer* tokenizer = nullptr;
  const model::ChatTemplate* chat_template = nullptr;
  std::vector<std::string> names = {};  // --served-model-name; the first is reported
  int32_t max_model_len = 0;
  uint64_t default_seed = 0;  // --seed; requests without a seed draw from it
  std::string build = {};     // for /version
  // Appended to /metrics: facts of others (bytes by owner), in Prometheus text format. Any thread.
  std::function<std::string(const HostUse&)> extra_metrics = {};
  // What /v1/ledger answers: bytes by owner, one JSON object. Any thread, and it must not wait.
  std::function<std::string(const HostUse&)> ledger = {};
  // As the engine has them: what a request is counted as before it has run.
  std::array<engine::ClassPolicy, engine::kNumClasses> classes = engine::EngineConfig{}.classes;
  // Several variants that share tokenizer, template and context: what the routing knows of them,
  // and their engines, in the same order. Empty: the model has one, which has no name.
  std::vector<route::Variant> variants = {};
  std::vector<engine::Engine*> variant_engines = {};

  std::span<engine::Engine* const> engines() const {
    if (variants.empty()) return {&engine, 1};
    return variant_engines;
  }
};

class Server {
 public:
  // Binds and serves. Errors name the address and the flag: port in use, unreadable certificate,
  // a non-loopback host without an API key.
  static Result<std::unique_ptr<Server>> start(const ServerConfig& config,
                                               const ServedModel& model);
  ~Server();

  uint16_t port() const;
  uint16_t admin_port() const;
  // For /ready, which also needs a step that completed recently while work is running.
  void set_ready(bool ready);
  void drain();  // new requests get 503; streams go on
  // Waits until every answer is written to its socket; true when none is left.
  bool finish(TimeNs timeout_ns);
  void stop();  // closes everything; returns when the threads ended

 private:
  struct State;
  explicit Server(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace puna::api
