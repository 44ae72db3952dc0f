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
#include <span>
#include <thread>
#include <vector>

#include "api/server.h"
#include "base/allocation_seal.h"
#include "cli/commands.h"
#include "cli/loaded_model.h"
#include "cli/loaded_variants.h"
#include "cli/signals.h"
#include "cli/version.h"
#include "plan/byte_size.h"

namespace puna::cli {
namespace {

constexpr int kSignalPollMs = 20;
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

using Engines = std::span<engine::Engine* const>;

// Of each engine; the first has what the process has once.
std::vector<plan::LiveUse> live_use(Engines engines, const api::HostUse& host) {
  std::vector<plan::LiveUse> uses;
  for (const engine::Engine* engine : engines) {
    const engine::EngineStats& stats = engine->stats();
    uses.push_back({.kv_usage = stats.kv_cache_usage.value(),
                    .host_kv_usage = stats.host_kv_usage.value(),
                    .requests_running = static_cast<int64_t>(stats.requests_running.value()),
                    .requests_waiting = static_cast<int64_t>(stats.requests_waiting.value()),
                    .tokens_waiting = static_cast<int64_t>(stats.tokens_waiting.value()),
                    .request_bytes = engine->request_bytes()});
  }
  uses.front().body_bytes = host.body_bytes;
  uses.front().connections = host.connections;
  uses.front().allocs_after_seal = allocs_after_seal();
  return uses;
}

// What is the same with one variant and with several. `engines` and `ledger` outlive it.
api::ServedModel served_model(const ServeFlags& flags, Engines engines, const plan::Ledger& ledger,
                              const plan::MemoryPlan& plan) {
  api::ServedModel served;
  served.engine = engines.front();
  served.max_model_len = plan.max_model_len;
  served.default_seed = flags.seed;
  served.classes = flags.classes;
  served.build = std::string(kVersion);
  served.ledger = [engines, &ledger](const api::HostUse& use) {
    return ledger.json(live_use(engines, use));
  };
  served.extra_metrics = [engines, &ledger](const api::HostUse& use) {
    return ledger.metrics(live_use(engines, use));
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
bool finish_requests(Engines engines, api::Server& server, TimeNs deadline_ns) {
  const auto left_ns = [&] { return std::max(deadline_ns - SteadyClock().now_ns(), TimeNs{0}); };
  bool finished = true;
  for (engine::Engine* engine : engines) finished = engine->drain(left_ns()) && finished;
  if (!finished) {  // clients are told that the answer is not complete
    for (engine::Engine* engine : engines) engine->stop();
  }
  return server.finish(std::max(left_ns(), kLastWritesNs)) && finished;
}

// Waits for SIGTERM or SIGINT, then lets running requests finish. A second signal ends at once.
int wait_and_drain(Signals& signals, Engines engines, api::Server& server, int32_t timeout_s) {
  while (!signals.wait(-1)) {
  }
  spdlog::info("draining: no new requests, at most {} s for those that run", timeout_s);
  server.drain();
  std::atomic<bool> ended{false};
  std::atomic<bool> all_finished{false};
  const TimeNs deadline_ns = SteadyClock().now_ns() + timeout_s * kNsPerSecond;
  std::thread drainer([&] {
    all_finished = finish_requests(engines, server, deadline_ns);
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
  for (engine::Engine* engine : engines) engine->stop();
  if (!all_finished) {
    spdlog::error("--drain-timeout {}: some requests did not finish in time", timeout_s);
    return 1;
  }
  spdlog::info("drained");
  return 0;
}

// From engines that are loaded to the end of the process.
Result<int> serve_until_signal(const ServeFlags& flags, Signals& signals, Engines engines,
                               const plan::HostLimits& limits, const api::ServedModel& served,
                               TimeNs started_ns) {
  for (engine::Engine* engine : engines) engine->calibrate(engine::kCalibrationBudget);
  seal_allocations();
  for (engine::Engine* engine : engines) engine->start();
  ASSIGN_OR_RETURN(const std::unique_ptr<api::Server> server,
                   api::Server::start(server_config(flags, limits), served));
  server->set_ready(true);
  print_listening(flags, *server, served.names.front(), started_ns);
  return wait_and_drain(signals, engines, *server, flags.drain_timeout_s);
}

Result<int> serve_variants(const ServeFlags& flags, Signals& signals, TimeNs started_ns) {
  ASSIGN_OR_RETURN(const LoadedVariants variants,
                   LoadedVariants::load(*flags.variants, flags.model, load_size(flags)));
  fmt::print(stderr, "{}", variants.memory_table());
  for (const std::string& line : variants.summaries()) spdlog::info(line);
  const Engines engines = variants.engines();
  api::ServedModel served =
      served_model(flags, engines, variants.ledger(), variants.plans().front());
  served.tokenizer = &variants.tokenizer();
  served.chat_template = &variants.chat_template();
  served.names = {flags.variants->name};
  served.variants.assign(variants.facts().begin(), variants.facts().end());
  served.variant_engines.assign(engines.begin(), engines.end());
  return serve_until_signal(flags, signals, engines, variants.plans().front().host, served,
                            started_ns);
}

}  // namespace

Result<int> serve(const ServeFlags& flags, TimeNs started_ns) {
  std::signal(SIGPIPE, SIG_IGN);
  spdlog::set_default_logger(spdlog::stderr_color_mt("puna"));
  spdlog::set_pattern("%Y-%m-%d %H:%M:%S.%e %^%l%$ %v");
  Signals signals;
  if (flags.variants) return serve_variants(flags, signals, started_ns);

  ASSIGN_OR_RETURN(LoadedModel model, LoadedModel::load(flags.model, load_size(flags)));
  fmt::print(stderr, "{}", model.memory_table());
  spdlog::info("{}: {} layers, {}, chat template {}, {}, warmed up with steps of up to {} tokens",
               flags.model.random_weights.empty() ? flags.model.model : served_name(flags),
               model.spec().num_layers, model.type_summary(), model.chat_template()->name(),
               compute_summary(flags.model), model.warm_up_tokens());
  engine::Engine* const engine = &model.engine();
  api::ServedModel served = served_model(flags, {&engine, 1}, model.ledger(), model.plan());
  served.tokenizer = &model.tokenizer();
  served.chat_template = model.chat_template();
  served.names = flags.served_model_names;
  if (served.names.empty()) served.names.push_back(served_name(flags));
  return serve_until_signal(flags, signals, {&engine, 1}, model.plan().host, served, started_ns);
}

}  // namespace puna::cli
