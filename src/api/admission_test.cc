// SPDX-License-Identifier: Apache-2.0
// Who may ask for what, over real sockets: keys, classes, token rates, deadlines, quotes, timings.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "api/api_error.h"
#include "api/api_keys.h"
#include "api/request_terms.h"
#include "api/test_server.h"

namespace puna::api {
namespace {

namespace json = boost::json;
using engine::RequestClass;
using testing::HasSubstr;

TEST(ApiKeys, SaltsFollowTheKeyAndTenantsTheName) {
  const std::vector<KeyPolicy> keys = {{.key = "one", .tenant = "a", .weight = 2.0},
                                       {.key = "two", .tenant = "b"},
                                       {.key = "three", .tenant = "a", .weight = 2.0}};
  const ApiKeys api_keys(keys);
  const Caller* one = api_keys.caller("Bearer one");
  const Caller* two = api_keys.caller("bearer two");
  const Caller* three = api_keys.caller("Bearer three");
  ASSERT_TRUE(one != nullptr && two != nullptr && three != nullptr);
  EXPECT_EQ(one->tenant, 0);
  EXPECT_EQ(two->tenant, 1);
  EXPECT_EQ(three->tenant, 0);
  EXPECT_NE(one->salt, two->salt);
  EXPECT_NE(one->salt, three->salt);
  for (const char* wrong : {"", "Bearer ", "one", "Bearer onf", "Basic one"}) {
    EXPECT_EQ(api_keys.caller(wrong), nullptr) << wrong;
  }
  EXPECT_EQ(cache_salt(one->salt, ""), one->salt);
  EXPECT_NE(cache_salt(one->salt, "x"), cache_salt(two->salt, "x"));
  EXPECT_NE(cache_salt(one->salt, "x"), cache_salt(one->salt, "y"));
  ASSERT_NE(ApiKeys({}).caller(""), nullptr);

  const std::vector<engine::TenantPolicy> tenants = tenants_of(keys);
  ASSERT_EQ(tenants.size(), 2U);
  EXPECT_EQ(tenants[0].name, "a");
  EXPECT_EQ(tenants[0].weight, 2.0);
  EXPECT_EQ(tenants_of({}).size(), 1U);
}

TEST(RequestTerms, TheEarlierDeadlineAndTheHeadersClassCount) {
  HttpRequest http;
  http.headers = {{"x-puna-class", "batch"},
                  {"x-request-timeout-ms", "2000"},
                  {"x-llm-d-slo-ttft-ms", "12.5"},
                  {"x-llm-d-slo-tpot-ms", "40"}};
  ApiRequest request;
  request.deadline_ms = 500;
  RequestTerms terms;
  ASSERT_FALSE(read_terms(http, request, Caller(), 7, terms));
  EXPECT_EQ(terms.request_class, RequestClass::kBatch);
  EXPECT_EQ(terms.deadline_ns, 7 + 500 * kNsPerMs);
  EXPECT_EQ(terms.ttft_target_ns, 12'500'000);
  EXPECT_EQ(terms.tpot_target_ns, 40 * kNsPerMs);
  request.deadline_ms = 5000;
  ASSERT_FALSE(read_terms(http, request, Caller(), 7, terms));
  EXPECT_EQ(terms.deadline_ns, 7 + 2000 * kNsPerMs);
}

TEST(RequestTerms, BodiesAskForLowerClassesInTheirOwnWords) {
  const auto class_of = [](const std::string& tier, std::optional<int64_t> priority,
                           RequestClass highest) {
    ApiRequest request;
    request.service_tier = tier;
    request.priority = priority;
    RequestTerms terms;
    EXPECT_FALSE(read_terms({}, request, {.highest_class = highest}, 0, terms));
    return terms.request_class;
  };
  EXPECT_EQ(class_of("", {}, RequestClass::kInteractive), RequestClass::kInteractive);
  EXPECT_EQ(class_of("auto", -5, RequestClass::kInteractive), RequestClass::kInteractive);
  EXPECT_EQ(class_of("flex", {}, RequestClass::kInteractive), RequestClass::kBatch);
  EXPECT_EQ(class_of("", 1, RequestClass::kInteractive), RequestClass::kBatch);
  EXPECT_EQ(class_of("flex", 1, RequestClass::kBackground), RequestClass::kBackground);
}

struct AdmissionTest : ServerTest {
  static constexpr const char* kBody = R"({"prompt":"abc","max_tokens":8,"ignore_eos":true})";

  static std::string with_key(const std::string& key, const std::string& headers = {}) {
    return fmt::format("Authorization: Bearer {}\r\n{}", key, headers);
  }
  double metric(const std::string& line) {
    const std::string text = get("/metrics").body;
    const size_t at = text.find(line);
    EXPECT_NE(at, std::string::npos) << line;
    return at == std::string::npos ? -1 : std::stod(text.substr(at + line.size()));
  }
};

TEST(ApiErrors, ARefusalsWaitIsToldAsTheEngineGaveIt) {
  engine::Refusal refusal;
  refusal.retry_after_s = 0.0123;
  const HttpResponse response = error_response(from_refusal(refusal));
  const auto told = [&](std::string_view name) {
    for (const auto& [key, value] : response.headers) {
      if (key == name) return value;
    }
    return std::string();
  };
  EXPECT_EQ(told("retry-after-ms"), "13");
  EXPECT_EQ(told("Retry-After"), "1");  // whole seconds
}

TEST_F(AdmissionTest, AKeyMayNotAskForMoreThanItsClass) {
  config.api_keys = {{.key = "low", .highest_class = RequestClass::kBatch}};
  start();
  const auto status = [&](const std::string& headers) {
    return post("/v1/completions", kBody, with_key("low", headers)).status;
  };
  EXPECT_EQ(status(""), 200);
  EXPECT_EQ(status("x-puna-class: background\r\n"), 200);
  const TestResponse refused =
      post("/v1/completions", kBody, with_key("low", "x-puna-class: interactive\r\n"));
  EXPECT_EQ(refused.status, 403);
  EXPECT_EQ(error_code_of(refused), "class_not_allowed");
  EXPECT_EQ(status("x-puna-class: urgent\r\n"), 400);
  for (const char* header : {"x-request-timeout-ms: soon", "x-request-timeout-ms: 0",
                             "x-llm-d-slo-ttft-ms: -1", "x-llm-d-slo-tpot-ms: 1e99"}) {
    EXPECT_EQ(status(fmt::format("{}\r\n", header)), 400) << header;
  }
}

TEST_F(AdmissionTest, TokensAMinuteAreLimitedPerKey) {
  config.api_keys = {{.key = "small", .tokens_per_minute = 20}, {.key = "other"}};
  start();
  const TestResponse first = post("/v1/completions", kBody, with_key("small"));
  EXPECT_EQ(first.status, 200);
  EXPECT_EQ(first.header("x-ratelimit-limit-tokens"), "20");
  EXPECT_NE(first.header("x-ratelimit-reset-tokens"), "");
  const int left = std::stoi(first.header("x-ratelimit-remaining-tokens"));
  const auto used = parse_json(first.body).at("usage").at("total_tokens").as_int64();
  EXPECT_NEAR(left, static_cast<double>(20 - used), 3.0) << "a slow machine sees some flow in";

  const std::string long_body = R"({"prompt":"abc","max_tokens":16,"ignore_eos":true})";
  const TestResponse refused = post("/v1/completions", long_body, with_key("small"));
  EXPECT_EQ(refused.status, 429) << refused.body;
  EXPECT_EQ(error_code_of(refused), "rate_limit_exceeded");
  EXPECT_GE(std::stoi(refused.header("retry-after")), 1);
  EXPECT_EQ(refused.header("x-ratelimit-limit-tokens"), "20");
  EXPECT_EQ(refused.header("x-should-retry"), "");

  const TestResponse never = post(
      "/v1/completions", R"({"prompt":"abc","max_tokens":100,"stream":true})", with_key("small"));
  EXPECT_EQ(never.status, 429);
  EXPECT_EQ(never.header("x-should-retry"), "false");
  EXPECT_EQ(never.header("retry-after"), "");

  const TestResponse other = post("/v1/completions", long_body, with_key("other"));
  EXPECT_EQ(other.status, 200);
  EXPECT_EQ(other.header("x-ratelimit-limit-tokens"), "");
}

TEST_F(AdmissionTest, UnusedTokensGoBackToTheKey) {
  config.api_keys = {{.key = "k", .tokens_per_minute = 2000}};
  start();
  const std::string body =
      fmt::format(R"({{"prompt":"abc","max_tokens":1500,"stop_token_ids":[{}]}})",
                  fmt::join(
                      [] {
                        std::vector<int> all(256);
                        for (int i = 0; i < 256; ++i) all[static_cast<size_t>(i)] = i;
                        return all;
                      }(),
                      ","));
  for (int i = 0; i < 5; ++i) {  // 1503 tokens each, had they been used
    const auto answer = post("/v1/completions", body, with_key("k"));
    EXPECT_EQ(answer.status, 200) << i;
    // Given back before the client, which may come back at once, sees the end.
    EXPECT_GT(std::stoi(answer.header("x-ratelimit-remaining-tokens")), 1900) << i;
  }
}

TEST_F(AdmissionTest, QuotesAnswerWithoutRunning) {
  start();
  const json::value quote = parse_json(
      post("/v1/quote", R"({"messages":[{"role":"user","content":"hi"}],"max_tokens":7})").body);
  EXPECT_EQ(quote.at("object").as_string(), "quote");
  EXPECT_TRUE(quote.at("admitted").as_bool());
  EXPECT_EQ(quote.at("class").as_string(), "interactive");
  EXPECT_EQ(quote.at("max_tokens").as_int64(), 7);
  EXPECT_TRUE(quote.at("refusal").is_null());
  EXPECT_LE(quote.at("ttft_s").at("p50").to_number<double>(),
            quote.at("ttft_s").at("p95").to_number<double>());
  const json::value completion = parse_json(
      post("/v1/quote", R"({"prompt":"abc","logprobs":2})", "x-puna-class: batch\r\n").body);
  EXPECT_EQ(completion.at("prompt_tokens").as_int64(), 3 + (tokenizer.adds_bos() ? 1 : 0));
  EXPECT_EQ(completion.at("class").as_string(), "batch");
  EXPECT_EQ(post("/v1/quote", R"({"max_tokens":7})").status, 400);
  EXPECT_EQ(post("/v1/quote", R"({"prompt":"a","max_tokens":100000})").status, 400);
  EXPECT_EQ(engine->stats().generation_tokens.value(), 0U);
}

TEST_F(AdmissionTest, QuotesKnowTheKeysTokenRate) {
  config.api_keys = {{.key = "small", .tokens_per_minute = 20}, {.key = "other"}};
  start();
  const auto quote = [&](const char* body, const char* key) {
    return parse_json(post("/v1/quote", body, with_key(key)).body);
  };
  EXPECT_TRUE(quote(kBody, "small").at("admitted").as_bool());
  EXPECT_TRUE(quote(kBody, "small").at("admitted").as_bool()) << "a quote takes nothing";
  EXPECT_EQ(post("/v1/completions", kBody, with_key("small")).status, 200);
  const char* long_body = R"({"prompt":"abc","max_tokens":16,"ignore_eos":true})";
  const json::value later = quote(long_body, "small");
  EXPECT_FALSE(later.at("admitted").as_bool());
  EXPECT_EQ(later.at("refusal").at("reason").as_string(), "rate_limited");
  const double wait_s = later.at("refusal").at("retry_after_s").to_number<double>();
  EXPECT_NEAR(wait_s, 30, 12) << "some of 20 tokens a minute are missing";
  const int64_t now = later.at("refusal").at("max_tokens_now").as_int64();
  EXPECT_LT(now, 16);
  const std::string fits = fmt::format(R"({{"prompt":"abc","max_tokens":{}}})", now);
  EXPECT_TRUE(quote(fits.c_str(), "small").at("admitted").as_bool()) << fits;
  const json::value never = quote(R"({"prompt":"abc","max_tokens":100})", "small");
  EXPECT_FALSE(never.at("admitted").as_bool());
  EXPECT_TRUE(never.at("refusal").at("retry_after_s").is_null());
  EXPECT_TRUE(quote(long_body, "other").at("admitted").as_bool());
}

TEST_F(AdmissionTest, DeadlinesEndAnswersWithWhatThereIs) {
  start();
  backend->step_us = 5000;
  const std::string body =
      R"({"prompt":"abc","max_tokens":2000,"ignore_eos":true,"deadline_ms":200)";
  const json::value whole = parse_json(post("/v1/completions", body + "}").body);
  const json::value& choice = whole.at("choices").at(0);
  EXPECT_EQ(choice.at("finish_reason").as_string(), "deadline");
  const int64_t tokens = whole.at("usage").at("completion_tokens").as_int64();
  EXPECT_GT(tokens, 0);
  EXPECT_LE(tokens, 40) << "200 ms of steps of 5 ms";
  EXPECT_FALSE(choice.at("text").as_string().empty());
  EXPECT_TRUE(engine_is_empty());
  // By now the engine knows its step times: with max_tokens the deadline is refused, without (a
  // chat) the answer is as long as it lets it be.
  EXPECT_EQ(post("/v1/completions", body + "}").status, 429);
  const auto events = events_of(
      post("/v1/chat/completions",
           R"({"messages":[{"role":"user","content":"a"}],"ignore_eos":true,"stream":true})",
           "x-request-timeout-ms: 300\r\n")
          .body);
  EXPECT_EQ(events.back().at("choices").at(0).at("finish_reason").as_string(), "deadline");
  EXPECT_GT(events.size(), 2U);
  EXPECT_EQ(engine->stats().finished_deadline.value(), 2U);
}

TEST_F(AdmissionTest, AFullQueueRefusesWithinFiveMilliseconds) {
  limits.max_num_seqs = 1;
  engine_config.max_queued_requests = 1;
  start();
  backend->step_us = 20'000;
  const std::string body = R"({"prompt":"abc","max_tokens":500,"ignore_eos":true,"stream":true})";
  TestClient running(server->port());
  running.send(TestClient::request("POST", "/v1/completions", body));
  ASSERT_TRUE(running.read_until("data: "));
  TestClient waiting(server->port());
  waiting.send(TestClient::request("POST", "/v1/completions", body));
  ASSERT_TRUE(eventually([&] { return engine->stats().requests_waiting.value() > 0; }));
  std::vector<TimeNs> took_ns;
  for (int i = 0; i < 101; ++i) {
    TestClient asking(server->port());
    const TimeNs before_ns = clock.now_ns();
    asking.send(TestClient::request("POST", "/v1/completions", body));
    ASSERT_TRUE(asking.read_until("server_overloaded"));
    took_ns.push_back(clock.now_ns() - before_ns);
  }
  std::sort(took_ns.begin(), took_ns.end());
  EXPECT_LT(took_ns[50], 5 * kNsPerMs);
  EXPECT_LT(took_ns[90], 15 * kNsPerMs) << "also on a busy machine";
}

TEST_F(AdmissionTest, TimingsAddUpToTheTotal) {
  start();
  backend->step_us = 1000;
  const auto check = [](const json::value& body) {
    const json::object& timings = body.at("puna_timings").as_object();
    double sum = 0;
    for (const char* part : {"intake_ms", "queue_ms", "prefill_ms", "decode_ms", "stall_ms"}) {
      EXPECT_GE(timings.at(part).to_number<double>(), 0) << part;
      sum += timings.at(part).to_number<double>();
    }
    EXPECT_GT(timings.at("total_ms").to_number<double>(), 7);
    EXPECT_GE(timings.at("cached_tokens").as_int64(), 0);
    EXPECT_NEAR(sum, timings.at("total_ms").to_number<double>(), 0.01);
    const double p50_ms = timings.at("quoted_ttft_p50_ms").to_number<double>();
    EXPECT_GE(timings.at("quoted_ttft_p95_ms").to_number<double>(), p50_ms);
  };
  const std::string asked = "x-puna-timings: 1\r\n";
  const TestResponse whole = post("/v1/completions", kBody, asked);
  check(parse_json(whole.body));
  const auto stream = [&](const char* options) {
    return events_of(
        post("/v1/completions",
             fmt::format(R"({{"prompt":"abc","max_tokens":8,"stream":true{}}})", options), asked)
            .body);
  };
  check(stream("").back());
  const auto with_usage = stream(R"(,"stream_options":{"include_usage":true})");
  EXPECT_TRUE(with_usage.back().at("choices").as_array().empty());
  check(with_usage.back());
  for (size_t i = 0; i + 1 < with_usage.size(); ++i) {
    EXPECT_FALSE(with_usage[i].as_object().contains("puna_timings"));
  }
  EXPECT_THAT(post("/v1/completions", kBody).body, testing::Not(HasSubstr("puna_timings")));
}

TEST_F(AdmissionTest, FullQueuesRefuseBeforeTheBodyIsParsed) {
  limits.max_num_seqs = 1;
  engine_config.max_queued_requests = 1;
  start();
  backend->step_us = 5000;
  const std::string body = R"({"prompt":"abc","max_tokens":500,"ignore_eos":true,"stream":true})";
  TestClient running(server->port());
  running.send(TestClient::request("POST", "/v1/completions", body));
  ASSERT_TRUE(running.read_until("data: "));
  TestClient waiting(server->port());
  waiting.send(TestClient::request("POST", "/v1/completions", body));
  ASSERT_TRUE(eventually([&] { return engine->stats().requests_waiting.value() > 0; }));
  const TestResponse refused = post("/v1/completions", body);
  EXPECT_EQ(refused.status, 429);
  const json::value error = parse_json(refused.body).at("error");
  EXPECT_EQ(error.at("code").as_string(), "server_overloaded");
  EXPECT_EQ(error.at("reason").as_string(), "queue_full");
  EXPECT_GE(error.at("max_tokens_now").as_int64(), 0);
  EXPECT_EQ(metric(R"(puna:refusals_total{model_name="test-model",engine="0",class="interactive",)"
                   R"(reason="queue_full"} )"),
            1);
}

TEST_F(AdmissionTest, LedgersAreWhatTheyAreGiven) {
  start();
  EXPECT_EQ(get("/v1/ledger").status, 404);
  EXPECT_EQ(error_code_of(get("/v1/ledger")), "no_ledger");
  server->stop();
  ServedModel model = served();
  model.ledger = [](const HostUse& use) {
    return fmt::format(R"({{"total":7,"connections":{}}})", use.connections);
  };
  auto restarted = Server::start(config, model);
  ASSERT_TRUE(restarted.ok());
  server = std::move(restarted).value();
  EXPECT_EQ(get("/v1/ledger").body, R"({"total":7,"connections":1})");
}

}  // namespace
}  // namespace puna::api
