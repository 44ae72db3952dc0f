// SPDX-License-Identifier: Apache-2.0
// Clients that misbehave, and what must not happen then: every other request goes on, and nothing
// that nobody waits for is computed.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "api/test_server.h"

namespace puna::api {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;
using testing::StartsWith;

constexpr std::string_view kLongStream =
    R"({"prompt":"abc","max_tokens":4000,"ignore_eos":true,"stream":true})";
constexpr std::string_view kLongAnswer = R"({"prompt":"abc","max_tokens":4000,"ignore_eos":true})";

struct ConnectionTest : ServerTest {
  void expect_alive() {
    EXPECT_EQ(get("/health").status, 200);
    EXPECT_EQ(post("/v1/completions", R"({"prompt":"a","max_tokens":2})").status, 200);
  }
  double metric(const std::string& name) {
    const std::string text = get("/metrics").body;
    const size_t at = text.find("\n" + name + "{");
    EXPECT_NE(at, std::string::npos) << name;
    return std::stod(text.substr(text.find("} ", at) + 2));
  }
  bool running(double count) {
    return eventually([&] { return engine->stats().requests_running.value() == count; });
  }
};

TEST_F(ConnectionTest, ClientsThatLeaveFreeTheirBlocks) {
  start();
  backend->step_us = 2000;  // the answers below would take 8 s
  TestClient streaming(server->port());
  streaming.send(TestClient::request("POST", "/v1/completions", kLongStream));
  ASSERT_TRUE(streaming.read_until("data: "));
  TestClient waiting(server->port());
  waiting.send(TestClient::request("POST", "/v1/completions", kLongAnswer));
  ASSERT_TRUE(running(2));
  streaming.close();
  ASSERT_TRUE(running(1));
  waiting.close();
  ASSERT_TRUE(engine_is_empty());
  EXPECT_EQ(engine->stats().finished_cancelled.value(), 2U);
  EXPECT_EQ(metric("puna:clients_gone_total"), 2);
  expect_alive();
}

TEST_F(ConnectionTest, OneClientsLeavingDoesNotDisturbAnother) {
  start();
  backend->step_us = 500;
  const std::string body = R"({"prompt":"xyz","max_tokens":200,"seed":1,"ignore_eos":true})";
  const TestResponse alone = post("/v1/completions", body);
  TestClient staying(server->port());
  staying.send(TestClient::request("POST", "/v1/completions", body));
  for (int i = 0; i < 5; ++i) {
    TestClient leaving(server->port());
    leaving.send(TestClient::request("POST", "/v1/completions", kLongStream));
    ASSERT_TRUE(leaving.read_until("data: "));
  }
  const TestResponse crowded = staying.read_response();
  EXPECT_EQ(parse_json(crowded.body).at("choices"), parse_json(alone.body).at("choices"));
}

TEST_F(ConnectionTest, ClientsThatSendTooMuchAheadLoseIt) {
  start();
  backend->step_us = 2000;
  const std::string next =
      TestClient::request("POST", "/v1/completions", std::string(2'000'000, ' '));
  TestClient leaving(server->port());
  leaving.send(TestClient::request("POST", "/v1/completions", kLongAnswer));
  ASSERT_TRUE(running(1));
  leaving.send(next);
  EXPECT_EQ(engine->stats().finished_cancelled.value(), 0U);
  leaving.close();
  EXPECT_TRUE(engine_is_empty());
  EXPECT_EQ(engine->stats().finished_cancelled.value(), 1U);

  TestClient staying(server->port());
  staying.send(TestClient::request("POST", "/v1/completions",
                                   R"({"prompt":"abc","max_tokens":100,"ignore_eos":true})"));
  ASSERT_TRUE(running(1));
  staying.send(next);
  EXPECT_EQ(staying.read_response().status, 200);
  EXPECT_TRUE(staying.closed_by_server());
}

TEST_F(ConnectionTest, PipelinedRequestsAreAnsweredInOrder) {
  start();
  TestClient client(server->port());
  const std::string completion = R"({"prompt":"abc","max_tokens":3,"stream":true})";
  client.send(TestClient::request("GET", "/health") +
              TestClient::request("POST", "/v1/completions", completion) +
              TestClient::request("GET", "/nothing") + TestClient::request("GET", "/version") +
              TestClient::request("POST", "/v1/completions", R"({"prompt":"abc","max_tokens":3})"));
  EXPECT_EQ(client.read_response().status, 200);
  EXPECT_THAT(client.read_response().body, HasSubstr("data: [DONE]"));
  EXPECT_EQ(client.read_response().status, 404);
  EXPECT_THAT(client.read_response().body, HasSubstr("1.2.3"));
  EXPECT_THAT(client.read_response().body, HasSubstr("text_completion"));
  EXPECT_EQ(client.get("/health").status, 200);  // still open
}

TEST_F(ConnectionTest, SlowRequestsTimeOut) {
  config.header_timeout_ms = 300;
  config.idle_timeout_ms = 300;
  start();
  TestClient head(server->port());
  head.send("GET /health HTTP/1.1\r\nHost: t\r\n");
  TestClient body(server->port());
  body.send("POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Length: 50\r\n\r\n{");
  TestClient silent(server->port());
  TestClient idle(server->port());
  EXPECT_EQ(idle.get("/health").status, 200);
  for (int i = 0; i < 4; ++i) {  // a byte now and then does not help
    std::this_thread::sleep_for(milliseconds(60));
    head.send("a");
    body.send(" ");
  }
  EXPECT_EQ(head.read_response().status, 408);
  const TestResponse timeout = body.read_response();
  EXPECT_EQ(timeout.status, 408);
  EXPECT_EQ(error_code_of(timeout), "request_timeout");
  EXPECT_TRUE(body.closed_by_server());
  EXPECT_TRUE(silent.closed_by_server());
  EXPECT_TRUE(idle.closed_by_server());
  expect_alive();
}

TEST_F(ConnectionTest, ClientsThatNeverReadAreDropped) {
  config.write_timeout_ms = 400;
  start();
  TestClient deaf(server->port(), /*receive_buffer=*/4096);
  deaf.send(TestClient::request(
      "POST", "/v1/chat/completions",
      R"({"messages":[{"role":"user","content":"a"}],"max_tokens":3500,"ignore_eos":true,"n":8,
          "stream":true,"logprobs":true,"top_logprobs":20})"));
  EXPECT_TRUE(eventually([&] { return metric("puna:write_timeouts_total") == 1; }));
  EXPECT_TRUE(engine_is_empty());
  EXPECT_TRUE(eventually([&] { return metric("puna:connections") == 1; }));
  expect_alive();
}

TEST_F(ConnectionTest, SlowReadersGetEverything) {
  start();
  TestClient slow(server->port(), /*receive_buffer=*/4096);
  slow.send(TestClient::request(
      "POST", "/v1/completions",
      R"({"prompt":"a","max_tokens":3000,"ignore_eos":true,"stream":true,"logprobs":20})"));
  std::this_thread::sleep_for(milliseconds(500));  // all tokens wait in their channel
  EXPECT_TRUE(engine_is_empty());
  const TestResponse response = slow.read_response();
  EXPECT_EQ(events_of(response.body).size(), 3000U);
}

TEST_F(ConnectionTest, HugeBodiesAreRefusedEarly) {
  start();
  TestClient client(server->port());
  client.send("POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Length: 104857600\r\n\r\n");
  TestResponse refused = client.read_response();  // before a byte of the body
  EXPECT_EQ(refused.status, 413);
  EXPECT_THAT(refused.body, HasSubstr("16777216 bytes"));
  EXPECT_EQ(refused.header("connection"), "close");

  TestClient sending(server->port());  // one that sends it all before it reads
  sending.send("POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Length: 104857600\r\n\r\n");
  const std::string megabyte(1 << 20, 'x');
  for (int i = 0; i < 100; ++i) {
    if (!sending.send(megabyte)) break;
  }
  EXPECT_EQ(sending.read_response().status, 413);

  TestClient chunked(server->port());
  chunked.send("POST /v1/completions HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n");
  for (int i = 0; i < 17; ++i) {
    if (!chunked.send("100000\r\n" + megabyte + "\r\n")) break;
  }
  EXPECT_EQ(chunked.read_response().status, 413);

  TestClient asking(server->port());
  asking.send(
      "POST /v1/completions HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\n"
      "Content-Length: 104857600\r\n\r\n");
  EXPECT_EQ(asking.read_response().status, 413);
  expect_alive();
}

TEST_F(ConnectionTest, HugeHeadsAreRefused) {
  start();
  TestClient client(server->port());
  client.send("GET /health HTTP/1.1\r\nHost: t\r\n");
  for (int i = 0; i < 40; ++i) {
    if (!client.send(fmt::format("h{}: {}\r\n", i, std::string(1000, 'x')))) break;
  }
  EXPECT_EQ(client.read_response().status, 431);
  TestClient other(server->port());
  EXPECT_EQ(other.get("/health?" + std::string(20000, 'x')).status, 431);
  expect_alive();
}

TEST_F(ConnectionTest, AsksForTheBodyOfClientsThatWait) {
  start();
  TestClient client(server->port());
  const std::string body = R"({"prompt":"abc","max_tokens":3})";
  const std::string head = fmt::format(
      "POST /v1/completions HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: "
      "{}\r\n\r\n",
      body.size());
  client.send(head);
  EXPECT_EQ(client.read_response().status, 100);
  client.send(body);
  EXPECT_EQ(client.read_response().status, 200);
  EXPECT_EQ(client.ask(head + body).status, 200);  // did not wait
  client.send(
      "POST /nothing HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n");
  EXPECT_EQ(client.read_response().status, 404);
  EXPECT_TRUE(client.closed_by_server());
}

TEST_F(ConnectionTest, SpeaksHttp10) {
  start();
  TestClient plain(server->port());
  const std::string body = R"({"prompt":"abc","max_tokens":3,"stream":true})";
  plain.send(fmt::format("POST /v1/completions HTTP/1.0\r\nContent-Length: {}\r\n\r\n{}",
                         body.size(), body));
  const TestResponse stream = plain.read_response();
  EXPECT_EQ(stream.header("transfer-encoding"), "");
  EXPECT_EQ(stream.header("connection"), "close");
  EXPECT_THAT(stream.body, StartsWith("data: {"));
  EXPECT_GE(events_of(stream.body).size(), 1U);
  TestClient kept(server->port());
  EXPECT_EQ(kept.ask("GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").status, 200);
  EXPECT_EQ(kept.ask("GET /health HTTP/1.0\r\n\r\n").status, 200);
  EXPECT_TRUE(kept.closed_by_server());
}

TEST_F(ConnectionTest, TooManyConnectionsAreToldSo) {
  config.max_connections = 3;
  start();
  std::vector<std::unique_ptr<TestClient>> clients;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(std::make_unique<TestClient>(server->port()));
    EXPECT_EQ(clients.back()->get("/health").status, 200);
  }
  for (int i = 0; i < 5; ++i) {
    TestClient extra(server->port());
    const TestResponse refused = extra.get("/health");
    EXPECT_EQ(refused.status, 503);
    EXPECT_EQ(error_code_of(refused), "too_many_connections");
    EXPECT_EQ(refused.header("retry-after"), "1");
  }
  EXPECT_EQ(clients[0]->get("/health").status, 200);
  clients.pop_back();
  EXPECT_TRUE(eventually([&] { return TestClient(server->port()).get("/health").status == 200; }));
}

TEST_F(ConnectionTest, LargeRequestsTogetherAreBounded) {
  config.max_total_body_bytes = 3 << 20;
  start();
  const std::string head =
      "POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Length: 3000000\r\n\r\n";
  TestClient first(server->port());
  first.send(head + std::string(2'900'000, ' '));
  std::this_thread::sleep_for(milliseconds(200));
  TestClient second(server->port());
  second.send(head + std::string(2'900'000, ' '));
  EXPECT_EQ(second.read_response().status, 503);
  expect_alive();
  first.send(std::string(100'000, ' '));
  EXPECT_EQ(first.read_response().status, 400);  // read to its end: spaces are no JSON
}

TEST_F(ConnectionTest, LongPromptsDoNotBlockOthers) {
  config.io_threads = 1;
  config.work_threads = 1;
  start();
  std::vector<std::unique_ptr<TestClient>> heavy;
  const std::string body = fmt::format(R"({{"prompt":"{}"}})", std::string(8 << 20, 'a'));
  for (int i = 0; i < 3; ++i) {
    heavy.push_back(std::make_unique<TestClient>(server->port()));
    heavy.back()->send(TestClient::request("POST", "/v1/completions", body));
  }
  int answered = 0;
  TestClient light(server->port());
  const auto until = std::chrono::steady_clock::now() + milliseconds(200);
  while (std::chrono::steady_clock::now() < until) answered += light.get("/health").status == 200;
  EXPECT_GT(answered, 20);
  for (auto& client : heavy) {
    const TestResponse refused = client->read_response();
    EXPECT_EQ(error_code_of(refused), "context_length_exceeded");
    EXPECT_THAT(refused.body, HasSubstr("8388609 tokens"));
  }
}

TEST_F(ConnectionTest, DrainLetsStreamsFinish) {
  start();
  backend->step_us = 2000;
  TestClient idle(server->port());
  EXPECT_EQ(idle.get("/health").status, 200);
  TestClient streaming(server->port());
  streaming.send(
      TestClient::request("POST", "/v1/completions",
                          R"({"prompt":"abc","max_tokens":200,"ignore_eos":true,"stream":true})"));
  ASSERT_TRUE(streaming.read_until("data: "));
  server->drain();
  // A kept connection is told, not cut: a reset would look like a crash to a client about to write.
  EXPECT_EQ(idle.get("/ready").status, 503);
  EXPECT_TRUE(idle.closed_by_server());
  EXPECT_EQ(get("/ready").status, 503);
  EXPECT_EQ(get("/health").status, 200);
  const TestResponse refused = post("/v1/completions", R"({"prompt":"a"})");
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(error_code_of(refused), "server_draining");
  EXPECT_TRUE(engine->drain(20 * kNsPerSecond));
  const TestResponse stream = streaming.read_response();
  EXPECT_THAT(stream.body, HasSubstr("\"finish_reason\":\"length\""));
  EXPECT_THAT(stream.body, testing::EndsWith("data: [DONE]\n\n"));
}

TEST_F(ConnectionTest, AStoppedEngineIsToldInTheStream) {
  start();
  backend->step_us = 2000;
  TestClient streaming(server->port());
  streaming.send(TestClient::request("POST", "/v1/completions", kLongStream));
  ASSERT_TRUE(streaming.read_until("data: "));
  TestClient waiting(server->port());
  waiting.send(TestClient::request("POST", "/v1/completions", kLongAnswer));
  ASSERT_TRUE(running(2));
  engine->stop();
  EXPECT_THAT(streaming.read_response().body, HasSubstr(R"(data: {"error":{"message":)"));
  const TestResponse failed = waiting.read_response();
  EXPECT_EQ(failed.status, 503);
  EXPECT_EQ(error_code_of(failed), "server_stopped");
}

TEST_F(ConnectionTest, StopEndsEverythingAtOnce) {
  start();
  backend->step_us = 2000;
  TestClient streaming(server->port());
  streaming.send(TestClient::request("POST", "/v1/completions", kLongStream));
  ASSERT_TRUE(streaming.read_until("data: "));
  TestClient half(server->port());
  half.send("POST /v1/comp");
  TestClient heavy(server->port());
  heavy.send(TestClient::request("POST", "/v1/completions",
                                 fmt::format(R"({{"prompt":"{}"}})", std::string(8 << 20, 'a'))));
  server->stop();
  EXPECT_TRUE(streaming.closed_by_server());
  EXPECT_TRUE(engine_is_empty());
  EXPECT_EQ(engine->stats().finished_cancelled.value(), 1U);
}

TEST_F(ConnectionTest, AdminPortAnswersWhileTheEngineIsStuck) {
  config.admin_port = 0;
  config.io_threads = 1;
  start();
  backend->step_us = 700'000;
  TestClient streaming(server->port());
  streaming.send(TestClient::request("POST", "/v1/completions", kLongStream));
  ASSERT_TRUE(eventually([&] { return engine->stats().steps.value() > 0; }));
  const auto began = std::chrono::steady_clock::now();
  TestClient admin(server->admin_port());
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(admin.get("/health").status, 200);
    EXPECT_EQ(admin.get("/ready").status, 200);
    EXPECT_THAT(admin.get("/metrics").body, HasSubstr("vllm:num_requests_running"));
  }
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::milliseconds(600));
  EXPECT_EQ(admin.get("/version").status, 200);
  EXPECT_EQ(admin.get("/v1/models").status, 404);
  EXPECT_EQ(admin.ask(TestClient::request("POST", "/v1/completions", kLongAnswer)).status, 404);
  backend->step_us = 0;
}

TEST_F(ConnectionTest, AdminPortAnswersWhileALongPromptIsTokenised) {
  config.admin_port = 0;
  config.work_threads = 1;
  start();
  const std::string body = R"({"prompt":")" + std::string(4 << 20U, 'a') + R"("})";
  std::vector<std::unique_ptr<TestClient>> clients;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(std::make_unique<TestClient>(server->port()));
    clients.back()->send(TestClient::request("POST", "/tokenize", body));
  }
  TestClient admin(server->admin_port());
  for (int i = 0; i < 20; ++i) {
    const auto began = std::chrono::steady_clock::now();
    EXPECT_EQ(admin.get("/health").status, 200);
    // Tens of times what it takes, for machines that do a lot else.
    EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::milliseconds(500));
  }
  for (auto& client : clients) EXPECT_EQ(client->read_response().status, 200);
}

TEST_F(ConnectionTest, HealthSaysThatTheEngineIsStuck) {
  config.stall_timeout_ms = 200;
  start();
  backend->step_us = 1'000'000;
  TestClient waiting(server->port());
  waiting.send(
      TestClient::request("POST", "/v1/completions", R"({"prompt":"abc","max_tokens":1})"));
  EXPECT_TRUE(eventually([&] { return get("/health").status == 503; }));
  EXPECT_THAT(get("/ready").body, HasSubstr("stalled"));
  EXPECT_THAT(get("/health").body, HasSubstr(R"("phase":"run")"));
  EXPECT_EQ(waiting.read_response().status, 200);
  EXPECT_TRUE(eventually([&] { return get("/health").status == 200; }));
}

TEST_F(ConnectionTest, ReadinessOfAnIdleEngineIsProvenByACanary) {
  config.stall_timeout_ms = 200;
  config.canary_after_ms = 300;
  start();
  EXPECT_TRUE(eventually([&] {
    get("/ready");
    return engine->stats().steps.value() > 0;
  }));
  EXPECT_TRUE(eventually([&] { return get("/ready").status == 200; }));
  EXPECT_THAT(get("/metrics").body, HasSubstr("puna:canaries_total"));
  backend->step_us = 1'500'000;  // from here on an idle engine is a stuck one
  EXPECT_TRUE(eventually([&] { return get("/ready").status == 503; }));
  EXPECT_THAT(get("/health").body, HasSubstr("stalled"));
  backend->step_us = 0;
  EXPECT_TRUE(eventually([&] { return get("/ready").status == 200; }));
}

TEST_F(ConnectionTest, FinishWaitsForTheLastByte) {
  start();
  backend->step_us = 10'000;
  TestClient client(server->port());
  client.send(TestClient::request("POST", "/v1/completions",
                                  R"({"prompt":"abc","max_tokens":50,"ignore_eos":true})"));
  ASSERT_TRUE(eventually([&] { return engine->stats().generation_tokens.value() > 0; }));
  server->drain();
  EXPECT_FALSE(server->finish(kNsPerMs)) << "an answer is still being made";
  EXPECT_TRUE(server->finish(20 * kNsPerSecond));
  server->stop();
  EXPECT_EQ(client.read_response().status, 200);
}

TEST_F(ConnectionTest, GarbageDoesNotHurtOthers) {
  start();
  for (const std::string& bytes :
       {std::string("\x16\x03\x01\x02\x00\x01\x00", 7),
        std::string("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), std::string(100'000, '\0'),
        std::string("GET\r\n\r\n"), std::string("\r\n\r\n")}) {
    TestClient client(server->port());
    client.send(bytes);
    EXPECT_GE(client.read_response().status, 400);
    EXPECT_TRUE(client.closed_by_server());
  }
  expect_alive();
}

TEST_F(ConnectionTest, ManyStreamsAtOnce) {
  start();
  constexpr int kStreams = 48;
  std::vector<std::unique_ptr<TestClient>> clients;
  for (int i = 0; i < kStreams; ++i) {
    clients.push_back(std::make_unique<TestClient>(server->port()));
    clients.back()->send(TestClient::request(
        "POST", "/v1/completions",
        fmt::format(R"({{"prompt":"ab","max_tokens":100,"ignore_eos":true,"stream":true,"seed":{},)"
                    R"("stream_options":{{"include_usage":true}}}})",
                    i % 4)));
  }
  std::vector<std::string> texts;
  for (auto& client : clients) {
    std::string text;
    const auto events = events_of(client->read_response().body);
    for (const auto& event : events) {
      for (const auto& choice : event.at("choices").as_array())
        text += choice.at("text").as_string();
    }
    EXPECT_EQ(events.back().at("usage").at("completion_tokens").as_int64(), 100);
    texts.push_back(text);
  }
  for (size_t i = 4; i < texts.size(); ++i) EXPECT_EQ(texts[i], texts[i % 4]);
}

}  // namespace
}  // namespace puna::api
