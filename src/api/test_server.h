// SPDX-License-Identifier: Apache-2.0
// For tests: a server with a real engine thread over the NullBackend, on a free port.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <boost/json.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "api/server.h"
#include "api/test_client.h"
#include "engine/null_backend.h"
#include "engine/solo_run.h"

namespace puna::api {

// NullBackend with steps that take real time.
class SlowBackend final : public engine::Backend {
 public:
  explicit SlowBackend(const engine::BackendLimits& limits) : null_({.limits = limits}, nullptr) {}
  std::string_view name() const override { return "slow"; }
  const engine::BackendLimits& limits() const override { return null_.limits(); }
  void start(const engine::Batch& batch) override {
    std::this_thread::sleep_for(std::chrono::microseconds(step_us));
    null_.start(batch);
  }
  std::span<const engine::SampledToken> collect() override { return null_.collect(); }

  std::atomic<int> step_us{0};

 private:
  engine::NullBackend null_;
};

inline constexpr int32_t kTestContext = 4096;

struct ServerTest : ::testing::Test {
  ServerConfig config{.port = 0};
  engine::EngineConfig engine_config;
  engine::BackendLimits limits{.num_blocks = 8192,
                               .max_num_seqs = 64,
                               .max_batch_tokens = 1024,
                               .max_model_len = kTestContext,
                               .vocab_size = engine::kTinyVocab};

  model::Tokenizer tokenizer = engine::tiny_tokenizer();
  std::unique_ptr<model::ChatTemplate> chat_template;
  std::unique_ptr<SlowBackend> backend;
  SteadyClock clock;
  std::unique_ptr<engine::Engine> engine;
  std::unique_ptr<Server> server;

  void start() {
    auto chosen = model::ChatTemplate::choose("llama3", tokenizer);
    ASSERT_TRUE(chosen.ok()) << chosen.error().message();
    chat_template = std::make_unique<model::ChatTemplate>(std::move(chosen).value());
    backend = std::make_unique<SlowBackend>(limits);
    engine = std::make_unique<engine::Engine>(engine_config, *backend, tokenizer, clock);
    engine->start();
    auto started = Server::start(config, served());
    ASSERT_TRUE(started.ok()) << started.error().message();
    server = std::move(started).value();
    server->set_ready(true);
  }
  ServedModel served() {
    return {.engine = engine.get(),
            .tokenizer = &tokenizer,
            .chat_template = chat_template.get(),
            .names = {"test-model", "org/other name"},
            .max_model_len = kTestContext,
            .default_seed = 7,
            .build = "1.2.3",
            .extra_metrics = [](const HostUse&) { return std::string("puna:extra 1\n"); }};
  }
  void TearDown() override {
    if (server) server->stop();
    if (engine) engine->stop();
  }

  TestClient client() const { return TestClient(server->port()); }
  TestResponse get(std::string_view path, std::string_view headers = {}) {
    return client().get(path, headers);
  }
  TestResponse post(std::string_view path, std::string_view body, std::string_view headers = {}) {
    return client().post(path, body, headers);
  }
  // Waits until it is true, at most 10 s.
  static bool eventually(const std::function<bool()>& condition) {
    for (int i = 0; i < 5000; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return condition();
  }
  bool engine_is_empty() const {
    return eventually([this] {
      const auto& stats = engine->stats();
      return stats.requests_running.value() == 0 && stats.requests_waiting.value() == 0 &&
             stats.kv_cache_usage.value() == 0;
    });
  }
};

inline boost::json::value parse_json(const std::string& text) {
  boost::system::error_code ec;
  boost::json::value value = boost::json::parse(text, ec);
  EXPECT_FALSE(ec) << text;
  return value;
}

inline std::string error_code_of(const TestResponse& response) {
  const boost::json::value body = parse_json(response.body);
  const boost::json::value& code = body.at("error").at("code");
  return code.is_string() ? std::string(code.as_string()) : "null";
}

// The JSON of each "data:" line but [DONE], which must be the last.
inline std::vector<boost::json::value> events_of(const std::string& stream) {
  std::vector<boost::json::value> events;
  bool done = false;
  for (size_t at = 0; at < stream.size();) {
    const size_t end = stream.find("\n\n", at);
    EXPECT_NE(end, std::string::npos);
    if (end == std::string::npos) break;
    const std::string line = stream.substr(at, end - at);
    at = end + 2;
    EXPECT_TRUE(line.starts_with("data: ")) << line;
    EXPECT_FALSE(done) << "after [DONE]: " << line;
    done = line == "data: [DONE]";
    if (!done) events.push_back(parse_json(line.substr(6)));
  }
  EXPECT_TRUE(done) << stream;
  return events;
}

}  // namespace puna::api
