// SPDX-License-Identifier: Apache-2.0
// OpenAI's API over real sockets: answers, streams and errors in the shapes that clients expect.
#include "api/server.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "api/test_server.h"
#include "model/text_stream.h"

namespace puna::api {
namespace {

namespace json = boost::json;
using model::TokenId;
using testing::HasSubstr;
using testing::StartsWith;

std::string text_of(const json::value& value) { return std::string(value.as_string()); }

TEST_F(ServerTest, AnswersProbesAndModels) {
  start();
  EXPECT_EQ(get("/health").status, 200);
  EXPECT_EQ(get("/ping").status, 200);
  EXPECT_EQ(get("/ready").status, 200);
  EXPECT_EQ(get("/version").body, R"({"version":"1.2.3"})");
  server->set_ready(false);
  EXPECT_EQ(get("/ready").status, 503);
  EXPECT_EQ(get("/health").status, 200);
  const json::value models = parse_json(get("/v1/models").body);
  EXPECT_EQ(models.at("data").as_array().size(), 2U);
  EXPECT_EQ(models.at("data").at(0).at("id").as_string(), "test-model");
  EXPECT_EQ(models.at("data").at(0).at("max_model_len").as_int64(), kTestContext);
  EXPECT_EQ(parse_json(get("/v1/models/test-model").body).at("object").as_string(), "model");
  EXPECT_EQ(get("/v1/models/org%2Fother%20name?x").status, 200);
  EXPECT_EQ(get("/v1/models/org/other%20name").status, 200);
  const TestResponse head = client().ask(TestClient::request("HEAD", "/health"), true);
  EXPECT_EQ(head.status, 200);
  EXPECT_EQ(head.header("content-length"), std::to_string(get("/health").body.size()));
}

TEST_F(ServerTest, ErrorsHaveOpenAisShape) {
  start();
  const auto expect = [&](const TestResponse& response, int status, const std::string& code) {
    EXPECT_EQ(response.status, status) << response.body;
    EXPECT_EQ(error_code_of(response), code);
    const json::value body = parse_json(response.body);
    const json::object& error = body.at("error").as_object();
    EXPECT_FALSE(error.at("message").as_string().empty());
    EXPECT_TRUE(error.contains("param") && error.at("type").is_string());
    EXPECT_EQ(response.header("content-type"), "application/json");
  };
  expect(get("/v1/nothing"), 404, "unknown_url");
  expect(get("/v1/models/other"), 404, "model_not_found");
  expect(get("/v1/chat/completions"), 405, "method_not_allowed");
  expect(post("/health", "{}"), 405, "method_not_allowed");
  expect(post("/v1/completions", "{"), 400, "invalid_json");
  expect(post("/v1/completions", R"({"prompt":"a","model":"gpt-4"})"), 404, "model_not_found");
  expect(post("/v1/completions", R"({"prompt":"a","temperature":-1})"), 400, "invalid_value");
  expect(post("/v1/completions", R"({"prompt":[]})"), 400, "invalid_value");
  expect(
      post("/v1/chat/completions", R"({"messages":[{"role":"user","content":"a"}],"tools":[1]})"),
      400, "unsupported_parameter");
  EXPECT_EQ(get("/v1/chat/completions").header("allow"), "POST");
}

TEST_F(ServerTest, OverlongPromptsAreRefusedWithExactCounts) {
  start();
  const std::string ids = fmt::format("[{}]", fmt::join(std::vector<int>(4000, 65), ","));
  TestResponse response =
      post("/v1/completions", fmt::format(R"({{"prompt":{},"max_tokens":97}})", ids));
  EXPECT_EQ(response.status, 400);
  EXPECT_EQ(error_code_of(response), "context_length_exceeded");
  EXPECT_THAT(response.body, HasSubstr("4096 tokens"));
  EXPECT_THAT(response.body, HasSubstr("4097 tokens (4000 in the prompt, 97 in the completion)"));
  EXPECT_EQ(post("/v1/completions", fmt::format(R"({{"prompt":{},"max_tokens":96}})", ids)).status,
            200);
  const std::string long_text(5000, 'a');  // one token each, the template's on top
  response = post("/v1/chat/completions",
                  fmt::format(R"({{"messages":[{{"role":"user","content":"{}"}}]}})", long_text));
  EXPECT_EQ(response.status, 400);
  EXPECT_EQ(error_code_of(response), "context_length_exceeded");
  const json::value counted = parse_json(
      post("/tokenize",
           fmt::format(R"({{"messages":[{{"role":"user","content":"{}"}}]}})", long_text))
          .body);
  EXPECT_THAT(response.body, HasSubstr(fmt::format("{} tokens", counted.at("count").as_int64())));
}

TEST_F(ServerTest, EchoesOrMakesRequestIds) {
  start();
  EXPECT_EQ(get("/health", "x-request-id: abc-1\r\n").header("x-request-id"), "abc-1");
  const std::string made = get("/health").header("x-request-id");
  EXPECT_THAT(made, StartsWith("req_"));
  EXPECT_NE(get("/health").header("x-request-id"), made);
  EXPECT_THAT(get("/health", "x-request-id: a b\r\n").header("x-request-id"), StartsWith("req_"));
  EXPECT_EQ(post("/v1/completions", R"({"prompt":"a","stream":true})", "x-request-id: s1\r\n")
                .header("x-request-id"),
            "s1");
}

TEST_F(ServerTest, TokenizesAndDetokenizes) {
  start();
  const json::value tokens = parse_json(
      post("/tokenize", R"({"model":"test-model","prompt":"hé","add_special_tokens":false})").body);
  EXPECT_EQ(tokens.at("count").as_int64(), 3);
  EXPECT_EQ(tokens.at("max_model_len").as_int64(), kTestContext);
  EXPECT_EQ(tokens.at("tokens"), json::value({104, 195, 169}));
  EXPECT_EQ(post("/detokenize", R"({"tokens":[104,195,169]})").body, R"({"prompt":"hé"})");
  const json::value chat = parse_json(
      post("/tokenize",
           R"({"messages":[{"role":"user","content":"hi"}],"add_generation_prompt":false})")
          .body);
  const json::value prompted =
      parse_json(post("/tokenize", R"({"messages":[{"role":"user","content":"hi"}]})").body);
  EXPECT_GT(prompted.at("count").as_int64(), chat.at("count").as_int64());
  EXPECT_EQ(post("/detokenize", R"({"tokens":[512]})").status, 400);
}

// What a request must answer, from the definition of the null backend.
engine::SoloAnswer solo(const std::vector<TokenId>& prompt, const model::Tokenizer& tokenizer,
                        int max_tokens, float temperature, uint64_t seed, int top_logprobs = -1) {
  engine::Request request;
  request.prompt = prompt;
  request.sampling.temperature = temperature;
  request.sampling.seed = seed;
  request.sampling.top_logprobs = top_logprobs;
  request.stop.max_tokens = max_tokens;
  return engine::solo_run(request, tokenizer, engine::kTinyVocab);
}

std::string solo_text(const engine::SoloAnswer& answer, const model::Tokenizer& tokenizer) {
  model::TextStream stream(tokenizer, {});
  std::string text;
  for (const TokenId token : answer.tokens) text += stream.push(token);
  return text + stream.flush();
}

TEST_F(ServerTest, CompletionsEqualTheirSoloRuns) {
  start();
  const json::value body = parse_json(
      post("/v1/completions", R"({"prompt":[[1,2,3],[4,5]],"max_tokens":40,"seed":5,"logprobs":2})")
          .body);
  EXPECT_EQ(body.at("object").as_string(), "text_completion");
  EXPECT_THAT(text_of(body.at("id")), StartsWith("cmpl-"));
  EXPECT_EQ(body.at("model").as_string(), "test-model");
  EXPECT_THAT(text_of(body.at("system_fingerprint")), StartsWith("fp_"));
  size_t completion_tokens = 0;
  const std::vector<std::vector<TokenId>> prompts = {{1, 2, 3}, {4, 5}};
  for (size_t i = 0; i < prompts.size(); ++i) {
    const engine::SoloAnswer expected = solo(prompts[i], tokenizer, 40, 1.0F, 5, 2);
    const json::value& choice = body.at("choices").at(i);
    EXPECT_EQ(choice.at("index").as_int64(), static_cast<int64_t>(i));
    EXPECT_EQ(text_of(choice.at("text")), solo_text(expected, tokenizer));
    const bool stopped = expected.finish == engine::FinishReason::kStop;
    EXPECT_EQ(choice.at("finish_reason").as_string(), stopped ? "stop" : "length");
    completion_tokens += expected.tokens.size();
    const json::value& logprobs = choice.at("logprobs");
    const size_t shown = expected.tokens.size() - (stopped ? 1 : 0);
    ASSERT_EQ(logprobs.at("token_logprobs").as_array().size(), shown);
    for (size_t t = 0; t < shown; ++t) {
      EXPECT_EQ(static_cast<float>(logprobs.at("token_logprobs").at(t).as_double()),
                expected.logprobs[t]);
      EXPECT_GE(logprobs.at("top_logprobs").at(t).as_object().size(), 2U);
    }
    EXPECT_EQ(logprobs.at("text_offset").as_array().size(), shown);
    EXPECT_EQ(logprobs.at("tokens").as_array().size(), shown);
  }
  EXPECT_EQ(body.at("usage").at("prompt_tokens").as_int64(), 5);
  EXPECT_EQ(body.at("usage").at("completion_tokens").as_int64(),
            static_cast<int64_t>(completion_tokens));
}

TEST_F(ServerTest, ChatAnswersHaveOpenAisShape) {
  start();
  const json::value body = parse_json(
      post("/v1/chat/completions",
           R"({"messages":[{"role":"user","content":"hi"}],"max_tokens":30,"n":2,"temperature":0,
               "logprobs":true,"top_logprobs":3,"ignore_eos":true})")
          .body);
  EXPECT_EQ(body.at("object").as_string(), "chat.completion");
  ASSERT_EQ(body.at("choices").as_array().size(), 2U);
  const json::value& choice = body.at("choices").at(1);
  EXPECT_EQ(choice.at("index").as_int64(), 1);
  EXPECT_EQ(choice.at("message").at("role").as_string(), "assistant");
  EXPECT_EQ(choice.at("message").at("content"),
            body.at("choices").at(0).at("message").at("content"));
  EXPECT_EQ(choice.at("finish_reason").as_string(), "length");
  ASSERT_EQ(choice.at("logprobs").at("content").as_array().size(), 30U);
  const json::value& token = choice.at("logprobs").at("content").at(0);
  EXPECT_TRUE(token.at("token").is_string() && token.at("logprob").is_double());
  EXPECT_GE(token.at("bytes").as_array().size(), 1U);
  EXPECT_EQ(token.at("top_logprobs").as_array().size(), 3U);
  // Greedy: the token is the first alternative.
  EXPECT_EQ(token.at("logprob"), token.at("top_logprobs").at(0).at("logprob"));
  EXPECT_EQ(body.at("usage").at("completion_tokens").as_int64(), 60);
  EXPECT_TRUE(body.at("usage").at("prompt_tokens_details").as_object().contains("cached_tokens"));
}

TEST_F(ServerTest, SeedsMakeAnswersRepeatableAndChoicesDiffer) {
  start();
  const std::string seeded = R"({"prompt":"ab","max_tokens":20,"n":3,"seed":-9,"ignore_eos":true,)"
                             R"("skip_special_tokens":false})";
  const auto texts = [&](const std::string& body) {
    std::vector<std::string> result;
    const json::value answer = parse_json(post("/v1/completions", body).body);
    for (const json::value& choice : answer.at("choices").as_array()) {
      result.push_back(text_of(choice.at("text")));
    }
    return result;
  };
  const std::vector<std::string> first = texts(seeded);
  EXPECT_EQ(texts(seeded), first);
  EXPECT_EQ(std::set<std::string>(first.begin(), first.end()).size(), 3U);
  const std::string unseeded = R"({"prompt":["ab","ab"],"max_tokens":20,"ignore_eos":true,
                                   "skip_special_tokens":false})";
  const std::vector<std::string> drawn = texts(unseeded);
  EXPECT_NE(drawn[0], drawn[1]);
  EXPECT_NE(texts(unseeded), drawn);
}

TEST_F(ServerTest, CachedTokensAreCounted) {
  start();
  const std::string body =
      fmt::format(R"({{"prompt":"{}","max_tokens":2}})", std::string(100, 'a'));
  post("/v1/completions", body);
  const json::value second = parse_json(post("/v1/completions", body).body);
  EXPECT_EQ(second.at("usage").at("prompt_tokens_details").at("cached_tokens").as_int64(), 96);
  const json::value salted = parse_json(
      post("/v1/completions", body.substr(0, body.size() - 1) + R"(,"cache_salt":"mine"})").body);
  EXPECT_EQ(salted.at("usage").at("prompt_tokens_details").at("cached_tokens").as_int64(), 0);
}

TEST_F(ServerTest, EchoPutsThePromptInFront) {
  start();
  const std::string fields = R"(,"max_tokens":5,"temperature":0)";
  const auto text = [&](const std::string& prompt, const std::string& more) {
    const std::string body = R"({"prompt":)" + prompt + fields + more + "}";
    return text_of(parse_json(post("/v1/completions", body).body).at("choices").at(0).at("text"));
  };
  EXPECT_EQ(text(R"("héy")", R"(,"echo":true)"), "héy" + text(R"("héy")", ""));
  EXPECT_EQ(text("[104,105]", R"(,"echo":true)"), "hi" + text("[104,105]", ""));
}

// One choice of a stream, joined.
struct Joined {
  std::string text;
  json::array logprobs;  // chat: content; completions: token_logprobs
  json::array offsets;
  std::string finish;
  int roles = 0;
};

std::vector<Joined> join(const std::vector<json::value>& events, size_t choices, bool chat) {
  std::vector<Joined> result(choices);
  for (const json::value& event : events) {
    for (const json::value& choice : event.at("choices").as_array()) {
      Joined& to = result.at(static_cast<size_t>(choice.at("index").as_int64()));
      EXPECT_EQ(to.finish, "") << "after the end";
      const bool first = to.text.empty() && to.roles == 0;
      if (chat) {
        const json::object& delta = choice.at("delta").as_object();
        if (delta.contains("role")) ++to.roles;
        EXPECT_TRUE(!first || delta.contains("role"));
        to.text += text_of(delta.at("content"));
      } else {
        to.text += text_of(choice.at("text"));
      }
      if (!choice.at("logprobs").is_null()) {
        const json::value& logprobs = choice.at("logprobs");
        const json::array& list = logprobs.at(chat ? "content" : "token_logprobs").as_array();
        to.logprobs.insert(to.logprobs.end(), list.begin(), list.end());
        if (!chat) {
          const json::array& offsets = logprobs.at("text_offset").as_array();
          to.offsets.insert(to.offsets.end(), offsets.begin(), offsets.end());
        }
      }
      if (choice.at("finish_reason").is_string()) to.finish = text_of(choice.at("finish_reason"));
      EXPECT_TRUE(
          !to.finish.empty() || !choice.at("logprobs").is_null() ||
          !(chat ? choice.at("delta").at("content") : choice.at("text")).as_string().empty())
          << "an empty chunk";
    }
  }
  return result;
}

void expect_stream_equals_whole(ServerTest& test, bool chat, const std::string& fields) {
  const std::string path = chat ? "/v1/chat/completions" : "/v1/completions";
  const std::string base =
      (chat ? R"({"messages":[{"role":"user","content":"hi"}],)" : R"({"prompt":["hi","ho"],)") +
      fields;
  const json::value whole = parse_json(test.post(path, base + "}").body);
  const TestResponse response = test.post(path, base + R"(,"stream":true})");
  EXPECT_THAT(response.header("content-type"), StartsWith("text/event-stream"));
  const std::vector<json::value> events = events_of(response.body);
  const json::array& choices = whole.at("choices").as_array();
  const std::vector<Joined> joined = join(events, choices.size(), chat);
  for (size_t i = 0; i < choices.size(); ++i) {
    const json::value& choice = choices[i];
    EXPECT_EQ(joined[i].text,
              text_of(chat ? choice.at("message").at("content") : choice.at("text")));
    EXPECT_EQ(joined[i].finish, text_of(choice.at("finish_reason")));
    EXPECT_EQ(joined[i].roles, chat ? 1 : 0);
    if (choice.at("logprobs").is_null()) {
      EXPECT_TRUE(joined[i].logprobs.empty());
      continue;
    }
    EXPECT_EQ(joined[i].logprobs,
              choice.at("logprobs").at(chat ? "content" : "token_logprobs").as_array());
    if (!chat) {
      EXPECT_EQ(joined[i].offsets, choice.at("logprobs").at("text_offset").as_array());
    }
  }
  for (const json::value& event : events) {
    EXPECT_EQ(event.at("object").as_string(), chat ? "chat.completion.chunk" : "text_completion");
    EXPECT_EQ(event.at("id"), events[0].at("id"));
  }
}

TEST_F(ServerTest, StreamsJoinedAreTheWholeAnswer) {
  start();
  // Random tokens: half of them special, most of the others no whole character.
  for (const char* fields :
       {R"("seed":1,"max_tokens":200)", R"("seed":2,"max_tokens":200,"n":3,"ignore_eos":true)",
        R"("seed":3,"max_tokens":100,"ignore_eos":true,"skip_special_tokens":false)",
        R"("seed":4,"max_tokens":300,"ignore_eos":true,"stop":["a","bc","\u0001"])",
        R"("seed":5,"max_tokens":300,"ignore_eos":true,"stop":["e"],)"
        R"("include_stop_str_in_output":true)",
        R"("seed":6,"max_tokens":300,"stop_token_ids":[70,71,72,73],"ignore_eos":true)",
        R"("seed":7,"max_tokens":300,"ignore_eos":true,"skip_special_tokens":false,)"
        R"("stop":["reserved_special_token_7"])",
        R"("temperature":0,"max_tokens":1)"}) {
    for (const bool chat : {true, false}) {
      SCOPED_TRACE(fmt::format("{} {}", chat, fields));
      expect_stream_equals_whole(*this, chat, fields);
      const std::string logprobs =
          chat ? R"(,"logprobs":true,"top_logprobs":2)" : R"(,"logprobs":2)";
      expect_stream_equals_whole(*this, chat, fields + logprobs);
    }
  }
  EXPECT_TRUE(engine_is_empty());
}

TEST_F(ServerTest, StopStringsInSpecialTokensEndTheAnswer) {
  start();
  // The engine skips special tokens and so does not see this stop string; the server does.
  const json::value body = parse_json(
      post(
          "/v1/completions",
          R"({"prompt":"a","max_tokens":3000,"ignore_eos":true,"seed":1,"skip_special_tokens":false,
               "stop":["<|reserved_special_token_"]})")
          .body);
  EXPECT_EQ(body.at("choices").at(0).at("finish_reason").as_string(), "stop");
  EXPECT_THAT(text_of(body.at("choices").at(0).at("text")),
              testing::Not(HasSubstr("<|reserved_special_token_")));
  EXPECT_LT(body.at("usage").at("completion_tokens").as_int64(), 100);
  EXPECT_TRUE(engine_is_empty());
}

TEST_F(ServerTest, UsageComesWhereItWasAskedFor) {
  start();
  const std::string base =
      R"({"prompt":"hi","max_tokens":60,"seed":1,"ignore_eos":true,"stream":true)";
  for (const json::value& event : events_of(post("/v1/completions", base + "}").body)) {
    EXPECT_FALSE(event.as_object().contains("usage"));
  }
  std::vector<json::value> events = events_of(
      post("/v1/completions", base + R"(,"stream_options":{"include_usage":true}})").body);
  for (size_t i = 0; i + 1 < events.size(); ++i) EXPECT_TRUE(events[i].at("usage").is_null());
  EXPECT_TRUE(events.back().at("choices").as_array().empty());
  EXPECT_EQ(events.back().at("usage").at("completion_tokens").as_int64(), 60);
  EXPECT_EQ(events.back().at("usage").at("prompt_tokens").as_int64(), 3);  // BOS, h, i
  events = events_of(
      post("/v1/completions",
           base + R"(,"stream_options":{"include_usage":true,"continuous_usage_stats":true}})")
          .body);
  int64_t before = 0;
  for (const json::value& event : events) {
    const int64_t now = event.at("usage").at("completion_tokens").as_int64();
    EXPECT_GE(now, before);
    before = now;
  }
  EXPECT_EQ(before, 60);
}

TEST_F(ServerTest, FullQueueIsRefusedWithAQuote) {
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
  EXPECT_EQ(error_code_of(refused), "server_overloaded");
  EXPECT_GE(std::stoi(refused.header("retry-after")), 1);
  EXPECT_GE(std::stoi(refused.header("retry-after-ms")), 10);
  EXPECT_EQ(parse_json(refused.body).at("error").at("tokens_ahead").as_int64(), 4);
}

TEST_F(ServerTest, KeysAreRequiredWhereTheyGuard) {
  config.api_keys = {{.key = "secret-one"}, {.key = "secret-two"}};
  config.admin_port = 0;
  start();
  for (const char* path : {"/health", "/ready", "/ping", "/version"}) {
    EXPECT_EQ(get(path).status, 200) << path;
  }
  for (const char* path :
       {"/v1/models", "/metrics", "/v1/models/test-model", "/nothing", "/tokenize"}) {
    const TestResponse refused = get(path);
    EXPECT_EQ(refused.status, 401) << path;
    EXPECT_EQ(error_code_of(refused), "invalid_api_key");
    EXPECT_EQ(refused.header("www-authenticate"), "Bearer");
  }
  EXPECT_EQ(post("/v1/completions", R"({"prompt":"a"})").status, 401);
  for (const char* wrong :
       {"secret-on", "secret-one2", "", "Secret-one", "secret-one secret-two"}) {
    EXPECT_EQ(get("/v1/models", fmt::format("Authorization: Bearer {}\r\n", wrong)).status, 401);
  }
  EXPECT_EQ(get("/v1/models", "Authorization: Basic secret-one\r\n").status, 401);
  EXPECT_EQ(get("/v1/models", "Authorization: Bearer secret-one\r\n").status, 200);
  EXPECT_EQ(get("/v1/models", "authorization: bearer secret-two\r\n").status, 200);
  EXPECT_EQ(TestClient(server->admin_port()).get("/metrics").status, 200);
}

TEST_F(ServerTest, KeysDoNotShareCachedPrefixes) {
  config.api_keys = {{.key = "one"}, {.key = "two"}};
  start();
  const std::string body =
      fmt::format(R"({{"prompt":"{}","max_tokens":1}})", std::string(100, 'a'));
  const auto cached = [&](const char* key) {
    const TestResponse response =
        post("/v1/completions", body, fmt::format("Authorization: Bearer {}\r\n", key));
    return parse_json(response.body)
        .at("usage")
        .at("prompt_tokens_details")
        .at("cached_tokens")
        .as_int64();
  };
  EXPECT_EQ(cached("one"), 0);
  EXPECT_EQ(cached("two"), 0);
  EXPECT_EQ(cached("one"), 96);
}

TEST_F(ServerTest, MetricsHaveVllmsNames) {
  start();
  post("/v1/completions", R"({"prompt":"abc","max_tokens":7,"ignore_eos":true})");
  get("/nothing");
  ASSERT_TRUE(engine_is_empty());
  const std::string text = get("/metrics").body;
  const std::string labels = R"({model_name="test-model",engine="0")";
  for (const char* line :
       {"vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc",
        "vllm:cpu_cache_usage_perc", "puna:host_kv_usage_perc", "puna:kv_blocks_swapped_out_total",
        "puna:kv_blocks_swapped_in_total"}) {
    EXPECT_THAT(text, HasSubstr("\n" + std::string(line) + labels + "} 0\n"));
  }
  EXPECT_THAT(text, HasSubstr("vllm:prompt_tokens_total" + labels + "} 4\n"));
  EXPECT_THAT(text, HasSubstr("vllm:generation_tokens_total" + labels + "} 7\n"));
  EXPECT_THAT(text,
              HasSubstr("vllm:request_success_total" + labels + R"(,finished_reason="length"} 1)"));
  EXPECT_THAT(text,
              HasSubstr("vllm:time_to_first_token_seconds_bucket" + labels + R"(,le="0.001"})"));
  EXPECT_THAT(text,
              HasSubstr("vllm:time_to_first_token_seconds_bucket" + labels + R"(,le="2560"} 1)"));
  EXPECT_THAT(text,
              HasSubstr("vllm:time_to_first_token_seconds_bucket" + labels + R"(,le="+Inf"} 1)"));
  EXPECT_THAT(text, HasSubstr("vllm:inter_token_latency_seconds_count" + labels + "} 6\n"));
  EXPECT_THAT(text, HasSubstr(R"(,block_size="16",num_gpu_blocks="8192",num_cpu_blocks="0"} 1)"));
  EXPECT_THAT(text, HasSubstr("puna:http_responses_total" + labels + R"(,code="404"} 1)"));
  EXPECT_THAT(text, HasSubstr("puna:extra 1\n"));
  for (const char* name : {"vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total",
                           "vllm:num_preemptions_total", "vllm:e2e_request_latency_seconds",
                           "vllm:request_queue_time_seconds", "vllm:request_prefill_time_seconds",
                           "vllm:request_decode_time_seconds", "vllm:request_prompt_tokens",
                           "vllm:request_generation_tokens", "vllm:iteration_tokens_total",
                           "vllm:cache_config_info", "puna:tokens_in_flight",
                           "puna:request_refusals_total", "puna:steps_total", "puna:connections"}) {
    EXPECT_THAT(text, HasSubstr("# HELP " + std::string(name) + " "));
    EXPECT_THAT(text, HasSubstr("# TYPE " + std::string(name) + " "));
  }
}

TEST_F(ServerTest, RefusesToListenWhereItMustNot) {
  start();
  const auto error = [&](ServerConfig wrong) {
    auto result = Server::start(wrong, served());
    return result.ok() ? std::string("it started") : result.error().message();
  };
  EXPECT_THAT(error({.host = "0.0.0.0", .port = 0}), HasSubstr("--api-key"));
  EXPECT_THAT(error({.host = "::", .port = 0}), HasSubstr("--api-key"));
  EXPECT_THAT(error({.port = server->port()}), HasSubstr("--port"));
  EXPECT_THAT(error({.port = 0, .admin_port = server->port()}), HasSubstr("--admin-port"));
  EXPECT_THAT(error({.host = "no such host", .port = 0}), HasSubstr("--host"));
  EXPECT_THAT(error({.port = 0, .tls_cert = "/nowhere.pem"}), HasSubstr("belong together"));
  EXPECT_THAT(error({.port = 0, .tls_cert = "/nowhere.pem", .tls_key = "/nowhere.key"}),
              HasSubstr("--tls-cert /nowhere.pem"));
}

}  // namespace
}  // namespace puna::api
