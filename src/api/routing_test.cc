// SPDX-License-Identifier: Apache-2.0
// A server with three variants of a model: each request lands on one that is certified for it.
#include "api/routing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>

#include "api/test_server.h"

namespace puna::api {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr size_t kBase = 0;
constexpr size_t kQ8 = 1;
constexpr size_t kQ4 = 2;

// q8 passes all families, q4 edit and format alone.
struct RoutingTest : ServerTest {
  std::vector<std::unique_ptr<SlowBackend>> backends;
  std::vector<std::unique_ptr<engine::Engine>> engines;

  void start_three(std::array<int32_t, 3> max_num_seqs = {64, 64, 64}) {
    chat_template = std::make_unique<model::ChatTemplate>(
        model::ChatTemplate::choose("llama3", tokenizer).value());
    for (const int32_t most : max_num_seqs) {
      engine::BackendLimits own = limits;
      own.max_num_seqs = most;
      backends.push_back(std::make_unique<SlowBackend>(own));
      engines.push_back(
          std::make_unique<engine::Engine>(engine_config, *backends.back(), tokenizer, clock));
      engines.back()->start();
    }
    ServedModel model = served();
    model.engine = engines[kBase].get();
    for (const auto& one : engines) model.variant_engines.push_back(one.get());
    route::Variant base{.name = "base", .base = true, .cost = 160};
    route::Variant q8{.name = "q8", .cost = 100};
    q8.verdicts.fill(route::Verdict::kPass);
    q8.verdicts[index_of(TaskFamily::kOpenChat)] = route::Verdict::kUntested;
    route::Variant q4{.name = "q4", .cost = 60};
    q4.verdicts[index_of(TaskFamily::kEdit)] = route::Verdict::kPass;
    q4.verdicts[index_of(TaskFamily::kFormat)] = route::Verdict::kPass;
    q4.verdicts[index_of(TaskFamily::kCode)] = route::Verdict::kRefused;
    model.variants = {base, q8, q4};
    server = std::move(Server::start(config, model)).value();
    server->set_ready(true);
  }
  void TearDown() override {
    if (server) server->stop();
    for (auto& one : engines) one->stop();
  }
  TestResponse chat(std::string_view text, std::string_view headers = {},
                    std::string_view more = {}) {
    return post("/v1/chat/completions",
                fmt::format(R"({{"messages":[{{"role":"user","content":"{}"}}],"max_tokens":3{}}})",
                            text, more),
                headers);
  }
  static std::string variant_of(const TestResponse& response) {
    EXPECT_EQ(response.status, 200) << response.body;
    return std::string(response.header("x-puna-variant"));
  }
};

TEST_F(RoutingTest, TheFamilyDecides) {
  start_three();
  EXPECT_EQ(variant_of(chat("Proofread this paragraph and fix the spelling: helo")), "q4");
  EXPECT_EQ(variant_of(chat("Write a Python function that sorts a list.")), "q8");
  EXPECT_EQ(variant_of(chat("Why is the sky blue? Tell me a story about it.")), "q8");
  EXPECT_EQ(variant_of(chat("hm")), "q8");
  const TestResponse told = chat("hm", "x-puna-task: edit\r\n");
  EXPECT_EQ(variant_of(told), "q4");
  EXPECT_EQ(told.header("x-puna-task"), "edit");
  EXPECT_EQ(told.header("x-puna-task-confidence"), "1.00");
  EXPECT_EQ(variant_of(chat("hm", {}, R"(,"metadata":{"task":"format"})")), "q4");
  EXPECT_EQ(variant_of(chat("hm", {}, R"(,"metadata":{"task":"my own label"})")), "q8");
  EXPECT_EQ(variant_of(chat("hm", "x-puna-task: code\r\n", R"(,"metadata":{"task":"edit"})")),
            "q8");
  const std::string metrics = get("/metrics").body;
  EXPECT_THAT(metrics,
              HasSubstr("puna:routed_requests_total{model_name=\"test-model\",engine=\"2\","
                        "variant=\"q4\",family=\"edit\"} 2\n"));
  EXPECT_THAT(metrics, HasSubstr("variant=\"q4\",family=\"code\"} 0\n"));
  EXPECT_THAT(metrics, HasSubstr("vllm:num_requests_running{model_name=\"test-model\",engine=\"0\","
                                 "variant=\"base\"} 0\n"));
}

TEST_F(RoutingTest, AStreamSaysWhoAnswers) {
  start_three();
  const TestResponse response = chat("hm", "x-puna-task: format\r\n", R"(,"stream":true)");
  EXPECT_EQ(variant_of(response), "q4");
  EXPECT_EQ(response.header("x-puna-task"), "format");
  EXPECT_FALSE(events_of(response.body).empty());
}

TEST_F(RoutingTest, AHeaderThatNamesNoFamilyIsRefused) {
  start_three();
  const TestResponse response = chat("hm", "x-puna-task: Edit\r\n");
  EXPECT_EQ(response.status, 400);
  EXPECT_THAT(response.body, HasSubstr("open_chat"));
}

TEST_F(RoutingTest, ARequestMayNameAVariant) {
  start_three();
  const std::string named = R"(,"model":"org/other name:q4")";
  const TestResponse response = chat("hm", "x-puna-task: code\r\n", named);
  EXPECT_EQ(variant_of(response), "q4");
  EXPECT_EQ(parse_json(response.body).at("model").as_string(), "org/other name:q4");
  EXPECT_EQ(chat("hm", {}, R"(,"model":"test-model:q3")").status, 404);
  EXPECT_EQ(chat("hm", {}, R"(,"model":"q4")").status, 404);
  EXPECT_EQ(variant_of(chat("hm", {}, R"(,"model":"test-model:base")")), "base");
}

TEST_F(RoutingTest, ModelsListsTheVariants) {
  start_three();
  const boost::json::value list = parse_json(get("/v1/models").body);
  ASSERT_EQ(list.at("data").as_array().size(), 5U);
  const boost::json::value q4 = parse_json(get("/v1/models/test-model:q4").body);
  EXPECT_EQ(q4.at("id").as_string(), "test-model:q4");
  EXPECT_EQ(q4.at("parent").as_string(), "test-model");
  EXPECT_EQ(q4.at("variant").at("certified"), parse_json(R"(["format","edit"])"));
  EXPECT_FALSE(q4.at("variant").at("base").as_bool());
  EXPECT_EQ(get("/v1/models/test-model:q3").status, 404);
}

TEST_F(RoutingTest, AQuoteIsOfTheVariantThatWouldAnswer) {
  start_three();
  const std::string body = R"({"messages":[{"role":"user","content":"hm"}],"max_tokens":3})";
  const auto quote = parse_json(post("/v1/quote", body, "x-puna-task: edit\r\n").body);
  EXPECT_TRUE(quote.at("admitted").as_bool());
  EXPECT_EQ(quote.at("variant").as_string(), "q4");
  EXPECT_EQ(quote.at("task").as_string(), "edit");
}

TEST_F(RoutingTest, DifferentFingerprintsForDifferentVariants) {
  start_three();
  const auto of = [&](std::string_view headers) {
    return std::string(parse_json(chat("hm", headers).body).at("system_fingerprint").as_string());
  };
  EXPECT_NE(of("x-puna-task: edit\r\n"), of("x-puna-task: code\r\n"));
  EXPECT_EQ(of("x-puna-task: edit\r\n"), of("x-puna-task: format\r\n"));
}

// q4 has one place to run and none to wait: what does not fit goes on to q8 and then to the base;
// code, for which q4 is not certified, never goes there however full the others are.
TEST_F(RoutingTest, UnderPressureOnlyCertifiedVariantsAreUsed) {
  engine_config.max_queued_requests = 1;
  start_three({1, 1, 1});
  for (auto& one : backends) one->step_us = 20'000;
  std::vector<std::future<TestResponse>> edits;
  for (int i = 0; i < 12; ++i) {
    edits.push_back(std::async(std::launch::async, [&] {
      return chat("hm", "x-puna-task: edit\r\n", R"(,"ignore_eos":true)");
    }));
  }
  std::array<int, 3> taken = {};
  int refused = 0;
  for (auto& edit : edits) {
    const TestResponse response = edit.get();
    if (response.status == 429) {
      ++refused;
      continue;
    }
    const std::string variant = variant_of(response);
    ++taken[variant == "q4" ? kQ4 : variant == "q8" ? kQ8 : kBase];
  }
  EXPECT_GT(taken[kQ4], 0);
  EXPECT_GT(taken[kQ8], 0);
  EXPECT_GT(taken[kBase], 0);
  EXPECT_EQ(taken[kBase] + taken[kQ8] + taken[kQ4] + refused, 12);
  std::vector<std::future<TestResponse>> codes;
  for (int i = 0; i < 12; ++i) {
    codes.push_back(std::async(std::launch::async, [&] {
      return chat("hm", "x-puna-task: code\r\n", R"(,"ignore_eos":true)");
    }));
  }
  for (auto& code : codes) {
    const TestResponse response = code.get();
    if (response.status == 429) continue;
    EXPECT_NE(variant_of(response), "q4");
  }
}

TEST_F(RoutingTest, AStuckVariantIsSeen) {
  config.stall_timeout_ms = 100;
  start_three();
  EXPECT_EQ(get("/health").status, 200);
  backends[kQ4]->step_us = 1'000'000;
  std::future<TestResponse> slow =
      std::async(std::launch::async, [&] { return chat("hm", "x-puna-task: edit\r\n"); });
  // The others go on working, which must not hide it.
  EXPECT_TRUE(eventually([&] {
    EXPECT_EQ(chat("hm", "x-puna-task: code\r\n").status, 200);
    return get("/health").status == 503;
  }));
  backends[kQ4]->step_us = 0;
  EXPECT_EQ(slow.get().status, 200);
  EXPECT_TRUE(eventually([&] { return get("/health").status == 200; }));
}

TEST_F(ServerTest, OneVariantIsRoutedNowhere) {
  start();
  const TestResponse response =
      post("/v1/chat/completions", R"({"messages":[{"role":"user","content":"a"}],"max_tokens":1})",
           "x-puna-task: whatever\r\n");
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.header("x-puna-variant"), "");
  EXPECT_THAT(get("/metrics").body, Not(HasSubstr("routed")));
}

TEST(Routing, SeveralPromptsOfDifferentFamiliesAreUnsure) {
  ServedModel model{.names = {"m"}};
  model.variants.resize(2);
  model.variants[0].base = true;
  model.variants[1].verdicts[index_of(TaskFamily::kAlgebra)] = route::Verdict::kPass;
  model.variants[0].cost = 2;
  model.variants[1].cost = 1;
  ApiRequest request;
  request.endpoint = Endpoint::kCompletions;
  const auto prompt = [](std::string text) {
    Prompt made;
    made.text = std::move(text);
    return made;
  };
  request.prompts = {prompt("Solve for x: 3x + 7 = 22"), prompt("Solve for x: 2x = 4")};
  Routed routed;
  ASSERT_FALSE(route_request(model, {}, request, routed));
  EXPECT_EQ(routed.order.variants[0], 1);
  request.prompts->push_back(prompt("Write a Python function that adds."));
  ASSERT_FALSE(route_request(model, {}, request, routed));
  EXPECT_EQ(routed.order.variants[0], 0);
  EXPECT_EQ(routed.order.count, 1U);
}

TEST(Routing, WhatIsNotDoneHereStillShowsTheFamily) {
  const RequestLimits look{.vocab_size = 100, .max_model_len = 100, .only_look = true};
  ApiRequest request;
  const std::string body =
      R"({"messages":[{"role":"system","content":"s"},{"role":"user","content":"u"}],)"
      R"("response_format":{"type":"json_object"}})";
  ASSERT_FALSE(parse_request(Endpoint::kChat, body, look, request));
  EXPECT_TRUE(request.has_response_format);
  EXPECT_FALSE(request.has_tools);
  const route::RequestSigns signs = signs_of({}, request);
  EXPECT_EQ(signs.system, "s");
  EXPECT_EQ(signs.user, "u");
  EXPECT_EQ(route::classify(signs).family, TaskFamily::kJsonExtract);
  const RequestLimits strict{.vocab_size = 100, .max_model_len = 100};
  EXPECT_TRUE(parse_request(Endpoint::kChat, body, strict, request));
}

}  // namespace
}  // namespace puna::api
