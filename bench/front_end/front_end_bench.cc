// SPDX-License-Identifier: Apache-2.0
// How many tokens a second the server's front end carries: real sockets, HTTP, SSE and the engine's
// own loop, over a backend that computes nothing. The clients are a process of their own on the
// same machine, so what they cost is in the number too unless they are given other cores.
//
//   front_end_bench --streams 5000 --seconds 10 --step-us 30000   # 167k tokens a second
//   front_end_bench --server-cpus 0-1 --client-cpus 2-3
#include <fmt/format.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "api/server.h"
#include "engine/solo_run.h"
#include "front_end/stream_clients.h"

namespace puna::bench {
namespace {

constexpr int32_t kContext = 4096;
constexpr int64_t kMostStartSeconds = 60;
constexpr TimeNs kSliceNs = 100 * kNsPerMs;

struct Options {
  int streams = 5000;
  int seconds = 10;
  int max_tokens = 512;
  int io_threads = 2;
  int step_us = 30'000;
  std::string server_cpus = {};
  std::string client_cpus = {};
};

// Says "a" for every token, in steps that begin at least `step_us` after each other.
class EchoBackend final : public engine::Backend {
 public:
  EchoBackend(const engine::BackendLimits& limits, int step_us)
      : limits_(limits),
        step_(std::chrono::microseconds(step_us)),
        sampled_(static_cast<size_t>(limits.max_num_seqs)) {
    for (engine::SampledToken& one : sampled_) one.token = 'a';
  }
  std::string_view name() const override { return "echo"; }
  const engine::BackendLimits& limits() const override { return limits_; }
  void start(const engine::Batch& batch) override {
    num_sampled_ = static_cast<size_t>(batch.num_samples);
    std::this_thread::sleep_until(next_step_);
    next_step_ = std::max(next_step_, std::chrono::steady_clock::now() - step_) + step_;
  }
  std::span<const engine::SampledToken> collect() override {
    return std::span(sampled_).first(num_sampled_);
  }

 private:
  const engine::BackendLimits limits_;
  const std::chrono::steady_clock::duration step_;
  std::chrono::steady_clock::time_point next_step_;
  std::vector<engine::SampledToken> sampled_;
  size_t num_sampled_ = 0;
};

// "0-1" or "3".
void run_on(const std::string& cpus) {
  if (cpus.empty()) return;
  const size_t dash = cpus.find('-');
  const int first = std::stoi(cpus);
  const int last = dash == std::string::npos ? first : std::stoi(cpus.substr(dash + 1));
  cpu_set_t set;
  CPU_ZERO(&set);
  for (int cpu = first; cpu <= last; ++cpu) CPU_SET(static_cast<size_t>(cpu), &set);
  CHECK_EQ(sched_setaffinity(0, sizeof(set), &set), 0);
}

int64_t resident_bytes() {
  std::FILE* file = std::fopen("/proc/self/statm", "r");
  CHECK(file != nullptr);
  long pages = 0;
  CHECK_EQ(std::fscanf(file, "%*s %ld", &pages), 1);
  std::fclose(file);
  return int64_t{pages} * sysconf(_SC_PAGESIZE);
}

double cpu_seconds() {
  rusage used{};
  getrusage(RUSAGE_SELF, &used);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return seconds(used.ru_utime) + seconds(used.ru_stime);
}

// The server's side of the pipes: the clients tell when their streams run and when they are done.
struct Pipes {
  int to_client[2] = {-1, -1};
  int to_server[2] = {-1, -1};
  static void tell(int fd, const void* data, size_t size) {
    CHECK_EQ(::write(fd, data, size), static_cast<ssize_t>(size));
  }
  static bool hear(int fd, void* data, size_t size) {
    return ::read(fd, data, size) == static_cast<ssize_t>(size);
  }
};

int run_clients(const Options& options, const Pipes& pipes) {
  run_on(options.client_cpus);
  uint16_t port = 0;
  if (!Pipes::hear(pipes.to_client[0], &port, sizeof(port))) return 1;
  const std::string body =
      fmt::format(R"({{"prompt":[104,105],"max_tokens":{},"ignore_eos":true,"stream":true}})",
                  options.max_tokens);
  const std::string request =
      fmt::format("POST /v1/completions HTTP/1.1\r\nHost: bench\r\nContent-Length: {}\r\n\r\n{}",
                  body.size(), body);
  StreamClients clients(port, options.streams, request);
  bool started = true;
  Pipes::tell(pipes.to_server[1], &started, sizeof(started));  // connected
  Pipes::hear(pipes.to_client[0], &started, sizeof(started));
  clients.ask();
  const TimeNs deadline_ns = SteadyClock().now_ns() + kMostStartSeconds * kNsPerSecond;
  while (!clients.all_started() && SteadyClock().now_ns() < deadline_ns) clients.read_for(kSliceNs);
  started = clients.all_started();
  Pipes::tell(pipes.to_server[1], &started, sizeof(started));
  if (!started) return 1;
  clients.reset();
  clients.read_for(options.seconds * kNsPerSecond);
  const ClientReport report = clients.report();
  Pipes::tell(pipes.to_server[1], &report, sizeof(report));
  bool over = false;
  Pipes::hear(pipes.to_client[0], &over, sizeof(over));
  return 0;
}

void print(const Options& options, const ClientReport& report, double cpu_s, double stream_bytes) {
  const double events = static_cast<double>(report.events);
  fmt::print("streams              {} ({} failed)\n", options.streams, report.failed_streams);
  fmt::print("tokens a second      {:.0f}\n", events / options.seconds);
  fmt::print("bytes an event       {:.0f}\n", static_cast<double>(report.bytes) / events);
  fmt::print("answers              {}\n", report.answers);
  fmt::print("tokens of a stream   {} to {}\n", report.fewest_events, report.most_events);
  fmt::print("longest gap, ms      {:.0f} (median stream), {:.0f} (worst stream)\n",
             report.median_gap_ms, report.longest_gap_ms);
  fmt::print("server CPU           {:.2f} cores, {:.2f} us a token\n", cpu_s / options.seconds,
             cpu_s / events * 1e6);
  fmt::print("memory of a stream   {:.1f} KiB\n", stream_bytes / 1024);
}

struct Running {
  model::Tokenizer tokenizer = engine::tiny_tokenizer();
  model::ChatTemplate chat_template = model::ChatTemplate::choose("llama3", tokenizer).value();
  SteadyClock clock;
  EchoBackend backend;
  engine::Engine engine;
  std::unique_ptr<api::Server> server;

  explicit Running(const Options& options)
      : backend({.num_blocks = options.streams * (kContext / 16),
                 .max_num_seqs = options.streams,
                 .max_batch_tokens = 2 * options.streams,
                 .max_model_len = kContext,
                 .vocab_size = engine::kTinyVocab},
                options.step_us),
        engine({.max_queued_requests = 2 * options.streams}, backend, tokenizer, clock) {
    api::ServerConfig config{.port = 0};
    config.io_threads = options.io_threads;
    config.max_connections = options.streams + 10;
    engine.start();
    auto started = api::Server::start(config, {.engine = &engine,
                                               .tokenizer = &tokenizer,
                                               .chat_template = &chat_template,
                                               .names = {"echo"},
                                               .max_model_len = kContext,
                                               .build = "bench"});
    CHECK(started.ok());
    server = std::move(started).value();
    server->set_ready(true);
  }
  ~Running() {
    server->stop();
    engine.stop();
  }
};

int run_server(const Options& options, const Pipes& pipes) {
  run_on(options.server_cpus);
  Running running(options);
  const uint16_t port = running.server->port();
  const int64_t idle_bytes = resident_bytes();
  Pipes::tell(pipes.to_client[1], &port, sizeof(port));
  bool go_on = false;
  if (!Pipes::hear(pipes.to_server[0], &go_on, sizeof(go_on))) return 1;
  Pipes::tell(pipes.to_client[1], &go_on, sizeof(go_on));
  if (!Pipes::hear(pipes.to_server[0], &go_on, sizeof(go_on)) || !go_on) {
    fmt::print(stderr, "not every stream started within {} s\n", kMostStartSeconds);
    return 1;
  }
  const double cpu_before = cpu_seconds();
  ClientReport report;
  if (!Pipes::hear(pipes.to_server[0], &report, sizeof(report))) return 1;
  const double cpu_s = cpu_seconds() - cpu_before;
  const double bytes = static_cast<double>(resident_bytes() - idle_bytes) / options.streams;
  Pipes::tell(pipes.to_client[1], &go_on, sizeof(go_on));
  print(options, report, cpu_s, bytes);
  return report.failed_streams == 0 && report.fewest_events > 0 ? 0 : 1;
}

int run(const Options& options) {
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  Pipes pipes;
  CHECK_EQ(::pipe(pipes.to_client), 0);
  CHECK_EQ(::pipe(pipes.to_server), 0);
  const pid_t child = ::fork();  // before any thread
  CHECK_GE(child, 0);
  if (child == 0) {
    ::close(pipes.to_client[1]);
    ::close(pipes.to_server[0]);
    std::_Exit(run_clients(options, pipes));
  }
  ::close(pipes.to_client[0]);
  ::close(pipes.to_server[1]);
  const int code = run_server(options, pipes);
  int status = 0;
  ::waitpid(child, &status, 0);
  return code;
}

}  // namespace
}  // namespace puna::bench

int main(int argc, char** argv) {
  puna::bench::Options options;
  CLI::App app("front_end_bench: tokens a second through HTTP and SSE, without a model");
  app.add_option("--streams", options.streams, "open at once")->check(CLI::Range(1, 100000));
  app.add_option("--seconds", options.seconds, "measured")->check(CLI::Range(1, 3600));
  app.add_option("--max-tokens", options.max_tokens, "of an answer")->check(CLI::Range(1, 4000));
  app.add_option("--io-threads", options.io_threads)->check(CLI::Range(1, 64));
  app.add_option("--step-us", options.step_us, "least time of a step")
      ->check(CLI::Range(0, 1000000));
  app.add_option("--server-cpus", options.server_cpus, "such as 0-1");
  app.add_option("--client-cpus", options.client_cpus, "such as 2-3");
  CLI11_PARSE(app, argc, argv);
  return puna::bench::run(options);
}
