// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "api/server.h"
#include "base/allocation_seal.h"
#include "cli/commands.h"
#include "cli/loaded_model.h"
#include "cli/signals.h"
#include "cli/version.h"
#include "plan/byte_size.h"

namespace puna::cli {
namespace {

constexpr int kSignalPollMs = 20;
// How long the engine learns step times before the server is ready (docs/decisions/009).
constexpr TimeNs kCalibrationBudget = 100 * kNsPerMs;
// What clients get to read the last of their answers when --drain-timeout is over.
constexpr TimeNs kLastWritesNs = kNsPerSecond;

// "SmolLM2-135M-Instruct.Q4_1" for a file of that name, the folder's name for a folder.
std::string name_of(const std::string& path) {
  const std::filesystem::path model = std::filesystem::path(path).lexically_normal();
  const std::filesystem::path last =
      model.has_filename() ? model.filename() : model.parent_path().filename();
  return last.extension() == ".gguf" ? last.stem().string() : last.string();
}

std::string served_name(const ServeFlags& flags) {
  const std::string& random = flags.model.random_weights;
  return random.empty() ? name_of(flags.model.model) : random;
}

api::ServerConfig server_config(const ServeFlags& flags, const plan::HostLimits& limits) {
  api::ServerConfig config;
  config.host = flags.host;
  config.port = static_cast<uint16_t>(flags.port);
  config.admin_port = flags.admin_port;
  config.api_keys = flags.key_policies;
  config.tls_cert = flags.tls_cert;
  config.tls_key = flags.tls_key;
  config.max_connections = limits.max_connections;
  config.max_body_bytes = limits.max_body_bytes;
  config.max_total_body_bytes = limits.max_total_body_bytes;
  config.work_threads = limits.work_threads;
  return config;
}

plan::LiveUse live_use(LoadedModel& model, const api::HostUse& host) {
  const engine::EngineStats& stats = model.engine().stats();
  return {.kv_usage = stats.kv_cache_usage.value(),
          .requests_running = static_cast<int64_t>(stats.requests_running.value()),
          .requests_waiting = static_cast<int64_t>(stats.requests_waiting.value()),
          .tokens_waiting = static_cast<int64_t>(stats.tokens_waiting.value()),
          .request_bytes = model.engine().request_bytes(),
          .body_bytes = host.body_bytes,
          .connections = host.connections,
          .allocs_after_seal = allocs_after_seal()};
}

api::ServedModel served_model(LoadedModel& model, const ServeFlags& flags) {
  api::ServedModel served;
  served.engine = &model.engine();
  served.tokenizer = &model.tokenizer();
  served.chat_template = model.chat_template();
  served.names = flags.served_model_names;
  if (served.names.empty()) served.names.push_back(served_name(flags));
  served.max_model_len = model.plan().max_model_len;
  served.default_seed = flags.seed;
  served.classes = flags.classes;
  served.build = std::string(kVersion);
  served.ledger = [&model](const api::HostUse& use) {
    return model.ledger().json(live_use(model, use));
  };
  served.extra_metrics = [&model](const api::HostUse& use) {
    return model.ledger().metrics(live_use(model, use));
  };
  return served;
}

// The line that scripts wait for, and one that a person can paste.
void print_listening(const ServeFlags& flags, const api::Server& server, const std::string& name,
                     TimeNs started_ns) {
  const bool tls = !flags.tls_cert.empty();
  const std::string host =
      flags.host.find(':') == std::string::npos ? flags.host : "[" + flags.host + "]";
  const std::string url = fmt::format("{}://{}:{}", tls ? "https" : "http", host, server.port());
  const TimeNs took_ns = SteadyClock().now_ns() - started_ns;
  fmt::print("listening on {} ({} ms after start)\n", url, took_ns / kNsPerMs);
  if (flags.admin_port >= 0) fmt::print("admin on http://{}:{}\n", host, server.admin_port());
  fmt::print(
      "try: curl {}{}/v1/chat/completions -H 'Content-Type: application/json'{} -d "
      "'{{\"model\":\"{}\",\"messages\":[{{\"role\":\"user\",\"content\":\"Name the capital of "
      "France.\"}}],\"temperature\":0,\"max_tokens\":64}}'\n",
      tls ? "-k " : "", url,
      flags.key_policies.empty() ? "" : " -H 'Authorization: Bearer YOUR_API_KEY'", name);
  std::fflush(stdout);
}

// The engine finished, or its time is over; then the clients read what is left for them. True when
// both are done.
bool finish_requests(engine::Engine& engine, api::Server& server, TimeNs deadline_ns) {
  const auto left_ns = [&] { return std::max(deadline_ns - SteadyClock().now_ns(), TimeNs{0}); };
  const bool finished = engine.drain(left_ns());
  if (!finished) engine.stop();  // clients are told that the answer is not complete
  return server.finish(std::max(left_ns(), kLastWritesNs)) && finished;
}

// Waits for SIGTERM or SIGINT, then lets running requests finish. A second signal ends at once.
int wait_and_drain(Signals& signals, engine::Engine& engine, api::Server& server,
                   int32_t timeout_s) {
  while (!signals.wait(-1)) {
  }
  spdlog::info("draining: no new requests, at most {} s for those that run", timeout_s);
  server.drain();
  std::atomic<bool> ended{false};
  std::atomic<bool> all_finished{false};
  const TimeNs deadline_ns = SteadyClock().now_ns() + timeout_s * kNsPerSecond;
  std::thread drainer([&] {
    all_finished = finish_requests(engine, server, deadline_ns);
    ended = true;
  });
  while (!ended) {
    if (signals.wait(kSignalPollMs)) {
      spdlog::warn("second signal: leaving without draining");
      std::_Exit(1);  // on purpose without destructors: threads may be inside a long step
    }
  }
  drainer.join();
  server.stop();
  engine.stop();
  if (!all_finished) {
    spdlog::error("--drain-timeout {}: some requests did not finish in time", timeout_s);
    return 1;
  }
  spdlog::info("drained");
  return 0;
}

}  // namespace

Result<int> serve(const ServeFlags& flags, TimeNs started_ns) {
  std::signal(SIGPIPE, SIG_IGN);
  spdlog::set_default_logger(spdlog::stderr_color_mt("puna"));
  spdlog::set_pattern("%Y-%m-%d %H:%M:%S.%e %^%l%$ %v");
  Signals signals;

  ASSIGN_OR_RETURN(LoadedModel model, LoadedModel::load(flags.model, load_size(flags)));
  fmt::print(stderr, "{}", model.memory_table());
  spdlog::info("{}: {} layers, {}, chat template {}, {}, warmed up with steps of up to {} tokens",
               flags.model.random_weights.empty() ? flags.model.model : served_name(flags),
               model.spec().num_layers, model.type_summary(), model.chat_template()->name(),
               compute_summary(flags.model), model.warm_up_tokens());
  model.engine().calibrate(kCalibrationBudget);
  seal_allocations();
  model.engine().start();
  const api::ServedModel served = served_model(model, flags);
  ASSIGN_OR_RETURN(const std::unique_ptr<api::Server> server,
                   api::Server::start(server_config(flags, model.plan().host), served));
  server->set_ready(true);
  print_listening(flags, *server, served.names.front(), started_ns);
  return wait_and_drain(signals, model.engine(), *server, flags.drain_timeout_s);
}

}  // namespace puna::cli
