// SPDX-License-Identifier: Apache-2.0
// Every field of the request table, with every kind of wrong value; and what the body may look
// like.
#include "api/api_request.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "api/request_fields.h"

namespace puna::api {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

constexpr RequestLimits kLimits{.vocab_size = 1000, .max_model_len = 4096};

std::string base_body(Endpoint endpoint) {
  switch (endpoint) {
    case Endpoint::kChat:
      return R"("messages":[{"role":"user","content":"hi"}])";
    case Endpoint::kCompletions:
    case Endpoint::kTokenize:
      return R"("prompt":"hi")";
    case Endpoint::kDetokenize:
      return R"("tokens":[1])";
  }
  return {};
}

std::string body_with(Endpoint endpoint, std::string_view name, std::string_view value) {
  const std::string base = base_body(endpoint);
  if (base.starts_with(fmt::format("\"{}\":", name)))
    return fmt::format("{{\"{}\":{}}}", name, value);
  return fmt::format("{{{},\"{}\":{}}}", base, name, value);
}

MaybeError parse(Endpoint endpoint, std::string_view body, ApiRequest& request) {
  request = ApiRequest();
  return parse_request(endpoint, body, kLimits, request);
}

void expect_refused(Endpoint endpoint, std::string_view name, std::string_view value,
                    std::string_view in_message = {}) {
  ApiRequest request;
  const MaybeError error = parse(endpoint, body_with(endpoint, name, value), request);
  ASSERT_TRUE(error.has_value()) << name << " = " << value << " was taken";
  EXPECT_EQ(error->status, 400) << name << " = " << value;
  EXPECT_THAT(error->param, StartsWith(std::string(name))) << value;
  EXPECT_THAT(error->message, HasSubstr(std::string(name))) << value;
  EXPECT_THAT(error->message, HasSubstr(std::string(in_message))) << name << " = " << value;
}

void expect_taken(Endpoint endpoint, std::string_view name, std::string_view value) {
  ApiRequest request;
  const MaybeError error = parse(endpoint, body_with(endpoint, name, value), request);
  EXPECT_FALSE(error.has_value()) << name << " = " << value << ": " << error->message;
}

struct Case {
  const Field* field;
  Endpoint endpoint;
};

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (const Field& field : request_fields()) {
    for (const Endpoint endpoint :
         {Endpoint::kChat, Endpoint::kCompletions, Endpoint::kTokenize, Endpoint::kDetokenize}) {
      if ((field.endpoints & static_cast<uint8_t>(endpoint)) != 0)
        cases.push_back({&field, endpoint});
    }
  }
  return cases;
}

class RequestFieldTest : public testing::TestWithParam<Case> {
 protected:
  const Field& field() const { return *GetParam().field; }
  Endpoint endpoint() const { return GetParam().endpoint; }
  void refuse(std::string_view value, std::string_view in_message = {}) const {
    expect_refused(endpoint(), field().name, value, in_message);
  }
  template <typename T>
  bool is() const {
    return std::holds_alternative<T>(field().target);
  }
  bool required() const {
    return base_body(endpoint()).starts_with(fmt::format("\"{}\":", field().name));
  }
};

TEST_P(RequestFieldTest, NullIsTheSameAsAbsent) {
  if (required()) {
    refuse("null", "missing");
  } else if (field().name != "prompt" && field().name != "messages") {
    expect_taken(endpoint(), field().name, "null");
  }
}

TEST_P(RequestFieldTest, WrongTypesAreRefusedByName) {
  const bool number = is<float ApiRequest::*>() || is<std::optional<int64_t> ApiRequest::*>();
  if (number) {
    for (const char* value : {R"("1")", "true", "[]", "{}", R"("nan")"}) refuse(value, "must be");
  } else if (is<bool ApiRequest::*>()) {
    for (const char* value : {"0", "1", R"("true")", "[]", "{}"}) refuse(value, "a boolean");
  } else if (is<std::string ApiRequest::*>()) {
    for (const char* value : {"0", "true", "[]", "{}"}) refuse(value, "a string");
  } else if (is<FieldReader>()) {
    for (const char* value : {"true", "1.5"}) refuse(value, "must be");
  } else {
    refuse("12345", "not supported");
    refuse(R"({"x":1})", "not supported");
  }
}

TEST_P(RequestFieldTest, RangesNameTheValueAndTheLimits) {
  const bool real = is<float ApiRequest::*>();
  const bool integer = is<std::optional<int64_t> ApiRequest::*>();
  if (!real && !integer) return;
  if (field().name == "seed") {
    refuse("9223372036854775808", "64-bit");
    refuse("-1e30", "64-bit");
    return;
  }
  const auto high = fmt::format("{:.0f}", field().high);
  refuse(fmt::format("{:.0f}", field().high + 1), fmt::format("at most {}", high));
  refuse(fmt::format("{:.0f}", field().low - 1), "but is");
  refuse("1e308", "at most");
  refuse("-1e308", "at most");
  refuse("9223372036854775808", "at most");
  if (field().low_open) {
    refuse("0", "above 0");
    refuse("1e-60", "above 0");  // not 0, but its float is
  }
  if (integer) refuse("1.5", "an integer");
  const bool has_company = field().name == "best_of" || field().name == "top_logprobs" ||
                           field().name == "min_tokens";  // checked together with others
  if (!has_company) {
    expect_taken(endpoint(), field().name, high);
    if (!field().low_open)
      expect_taken(endpoint(), field().name, fmt::format("{:.0f}", field().low));
  }
}

TEST_P(RequestFieldTest, NeutralValuesOfRefusedFieldsAreTaken) {
  const Refused* refused = std::get_if<Refused>(&field().target);
  if (refused == nullptr) return;
  for (std::string_view rest = refused->neutral; !rest.empty();) {
    const size_t bar = rest.find('|');
    expect_taken(endpoint(), field().name, rest.substr(0, bar));
    rest = bar == std::string_view::npos ? std::string_view() : rest.substr(bar + 1);
  }
}

INSTANTIATE_TEST_SUITE_P(Table, RequestFieldTest, testing::ValuesIn(all_cases()),
                         [](const testing::TestParamInfo<Case>& one) {
                           return fmt::format("{}_{}_{}", one.index, one.param.field->name,
                                              static_cast<int>(one.param.endpoint));
                         });

TEST(ApiRequestTest, ReadsEveryFieldOfAChatRequest) {
  ApiRequest request;
  const MaybeError error = parse(Endpoint::kChat, R"({
    "model": "m", "messages": [{"role": "developer", "content": "be brief"},
      {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
    "temperature": 0.5, "top_p": 0.25, "min_p": 0.125, "top_k": 7, "repetition_penalty": 1.5,
    "frequency_penalty": -1, "presence_penalty": 2, "logit_bias": {"5": -100, "999": 1.5},
    "seed": -3, "max_tokens": 5, "max_completion_tokens": 9, "min_tokens": 2, "stop": ["x", "yz"],
    "stop_token_ids": [3, 4], "ignore_eos": true, "include_stop_str_in_output": true,
    "skip_special_tokens": false, "n": 2, "logprobs": true, "top_logprobs": 3, "stream": true,
    "stream_options": {"include_usage": true, "continuous_usage_stats": true},
    "add_generation_prompt": false, "cache_salt": "s", "user": "u", "unknown": {"deep": [1]}})",
                                 request);
  ASSERT_FALSE(error.has_value()) << error->message;
  ASSERT_EQ(request.messages->size(), 2U);
  EXPECT_EQ(request.messages->at(0).role, "system");
  EXPECT_EQ(request.messages->at(1).content, "a\nb");
  EXPECT_EQ(request.temperature, 0.5F);
  EXPECT_EQ(request.top_p, 0.25F);
  EXPECT_EQ(request.min_p, 0.125F);
  EXPECT_EQ(request.top_k, 7);
  EXPECT_EQ(request.repetition_penalty, 1.5F);
  EXPECT_EQ(request.frequency_penalty, -1.0F);
  EXPECT_EQ(request.presence_penalty, 2.0F);
  EXPECT_EQ(request.logit_bias.size(), 2U);
  EXPECT_EQ(request.logit_bias[1], (std::pair<TokenId, float>(999, 1.5F)));
  EXPECT_EQ(request.seed, -3);
  EXPECT_EQ(request.output_limit(), 9);
  EXPECT_EQ(request.min_tokens, 2);
  EXPECT_EQ(request.stop, (std::vector<std::string>{"x", "yz"}));
  EXPECT_EQ(request.stop_token_ids, (std::vector<TokenId>{3, 4}));
  EXPECT_TRUE(request.ignore_eos && request.include_stop_str_in_output && request.stream);
  EXPECT_TRUE(request.include_usage && request.continuous_usage_stats);
  EXPECT_FALSE(request.skip_special_tokens || request.add_generation_prompt);
  EXPECT_EQ(request.choices(), 2);
  EXPECT_EQ(request.engine_top_logprobs(), 3);
  EXPECT_EQ(request.cache_salt, "s");
}

TEST(ApiRequestTest, PromptHasFourShapes) {
  ApiRequest request;
  ASSERT_FALSE(parse(Endpoint::kCompletions, R"({"prompt":"a"})", request));
  EXPECT_EQ(request.prompts->at(0).text, "a");
  ASSERT_FALSE(parse(Endpoint::kCompletions, R"({"prompt":["a","b"]})", request));
  EXPECT_EQ(request.prompts->size(), 2U);
  ASSERT_FALSE(parse(Endpoint::kCompletions, R"({"prompt":[1,2,3]})", request));
  EXPECT_EQ(request.prompts->at(0).ids, (std::vector<TokenId>{1, 2, 3}));
  ASSERT_FALSE(parse(Endpoint::kCompletions, R"({"prompt":[[1,2],[3]]})", request));
  EXPECT_EQ(request.prompts->at(1).ids, (std::vector<TokenId>{3}));
  for (const char* bad : {"[]", "[1,\"a\"]", "[\"a\",1]", "[[1],[\"a\"]]", "[-1]", "[1000]",
                          "[[1,1000]]", "[1.5]", "[null]", "{}", "[{}]"}) {
    expect_refused(Endpoint::kCompletions, "prompt", bad);
  }
}

TEST(ApiRequestTest, MessagesAreCheckedByMember) {
  const auto refuse = [](std::string_view message, std::string_view param) {
    ApiRequest request;
    const MaybeError error =
        parse(Endpoint::kChat, fmt::format(R"({{"messages":[{}]}})", message), request);
    ASSERT_TRUE(error.has_value()) << message;
    EXPECT_THAT(error->param, StartsWith(std::string(param)));
  };
  refuse("", "messages");
  refuse("1", "messages[0]");
  refuse("{}", "messages[0].role");
  refuse(R"({"role":1,"content":"a"})", "messages[0].role");
  refuse(R"({"role":"wizard","content":"a"})", "messages[0].role");
  refuse(R"({"role":"user"})", "messages[0].content");
  refuse(R"({"role":"user","content":null})", "messages[0].content");
  refuse(R"({"role":"user","content":1})", "messages[0].content");
  refuse(R"({"role":"user","content":[1]})", "messages[0].content[0]");
  refuse(R"({"role":"user","content":[{"type":"image_url","image_url":{"url":"http://a"}}]})",
         "messages[0].content[0]");
  refuse(R"({"role":"user","content":[{"type":"text"}]})", "messages[0].content[0].text");
  refuse(R"({"role":"user","content":[{"text":"a"}]})", "messages[0].content[0].type");
  refuse(R"({"role":"assistant","content":"a","tool_calls":[{}]})", "messages[0].tool_calls");
  ApiRequest request;
  EXPECT_FALSE(parse(
      Endpoint::kChat,
      R"({"messages":[{"role":"assistant","content":"a","tool_calls":[],"name":"x"}]})", request));
}

TEST(ApiRequestTest, ListsAndMapsAreBounded) {
  std::string stops = "\"a\"";
  for (int i = 0; i < engine::kMaxStopStrings; ++i) stops += ",\"a\"";
  expect_refused(Endpoint::kChat, "stop", "[" + stops + "]", "0 to 16");
  expect_refused(Endpoint::kChat, "stop", "[\"\"]", "1 to 1024 bytes");
  expect_refused(Endpoint::kChat, "stop", "\"" + std::string(1025, 'x') + "\"", "has 1025");
  expect_refused(Endpoint::kChat, "stop", "[1]", "a string");
  expect_taken(Endpoint::kChat, "stop", "[]");
  expect_taken(Endpoint::kChat, "stop", "\"\"");
  std::string ids = "1";
  for (int i = 0; i < kMaxStopTokenIds; ++i) ids += ",1";
  expect_refused(Endpoint::kChat, "stop_token_ids", "[" + ids + "]", "0 to 256");
  expect_refused(Endpoint::kChat, "stop_token_ids", "[1000]", "0 to 999");
  expect_refused(Endpoint::kChat, "stop_token_ids", "[-1]", "0 to 999");
  std::string bias = "\"0\":1";
  for (int i = 1; i <= engine::kMaxLogitBias; ++i) bias += fmt::format(",\"{}\":1", i);
  expect_refused(Endpoint::kChat, "logit_bias", "{" + bias + "}", "at most 1024");
  expect_refused(Endpoint::kChat, "logit_bias", R"({"1000":1})", "0 to 999");
  expect_refused(Endpoint::kChat, "logit_bias", R"({"x":1})", "0 to 999");
  expect_refused(Endpoint::kChat, "logit_bias", R"({"1 ":1})", "0 to 999");
  expect_refused(Endpoint::kChat, "logit_bias", R"({"99999999999999":1})", "0 to 999");
  expect_refused(Endpoint::kChat, "logit_bias", R"({"1":101})", "at most 100");
  expect_refused(Endpoint::kChat, "logit_bias", R"({"1":"a"})", "a number");
  expect_refused(Endpoint::kChat, "stream_options", R"({"include_usage":1})", "a boolean");
}

TEST(ApiRequestTest, FieldsAreCheckedTogether) {
  const auto refuse = [](Endpoint endpoint, std::string_view more, std::string_view param) {
    ApiRequest request;
    const MaybeError error =
        parse(endpoint, fmt::format("{{{},{}}}", base_body(endpoint), more), request);
    ASSERT_TRUE(error.has_value()) << more;
    EXPECT_EQ(error->status, 400);
    EXPECT_EQ(error->param, param);
  };
  refuse(Endpoint::kChat, R"("top_logprobs":2)", "top_logprobs");
  refuse(Endpoint::kChat, R"("top_logprobs":2,"logprobs":false)", "top_logprobs");
  refuse(Endpoint::kCompletions, R"("n":2,"best_of":3)", "best_of");
  refuse(Endpoint::kCompletions, R"("echo":true,"logprobs":1)", "logprobs");
  refuse(Endpoint::kChat, R"("stream_options":{"include_usage":true})", "stream_options");
  refuse(Endpoint::kChat, R"("min_tokens":9,"max_tokens":8)", "min_tokens");
  refuse(Endpoint::kTokenize, R"("messages":[{"role":"user","content":"a"}])", "prompt");
  ApiRequest request;
  const MaybeError many =
      parse(Endpoint::kCompletions, R"({"prompt":["a","b","c"],"n":43})", request);
  ASSERT_TRUE(many.has_value());
  EXPECT_THAT(many->message, HasSubstr("129 choices"));
}

TEST(ApiRequestTest, BodiesThatAreNoRequest) {
  const auto refuse = [](std::string_view body, std::string_view message) {
    ApiRequest request;
    const MaybeError error = parse(Endpoint::kChat, body, request);
    ASSERT_TRUE(error.has_value()) << body.substr(0, 80);
    EXPECT_EQ(error->status, 400);
    EXPECT_THAT(error->message, HasSubstr(std::string(message)));
  };
  refuse("", "no valid JSON");
  refuse("{", "no valid JSON");
  refuse("{} x", "no valid JSON");
  refuse("[]", "a JSON object");
  refuse("null", "a JSON object");
  refuse("\"\xff\"", "no valid JSON");
  refuse(std::string(100000, '['), "no valid JSON");
  refuse("{}", "`messages` is missing");
  refuse(R"({"messages":[{"role":"user","content":"a"}],"x":)" + std::string(40, '[') +
             std::string(40, ']') + "}",
         "no valid JSON");
}

TEST(ApiRequestTest, ValueTreesAreBoundedInMemory) {
  std::string body = R"({"messages":[)";
  while (body.size() < (4U << 20U)) body += "1,";
  body += "1]}";
  ApiRequest request;
  const MaybeError error = parse(Endpoint::kChat, body, request);
  ASSERT_TRUE(error.has_value());
  EXPECT_EQ(error->status, 413);
}

}  // namespace
}  // namespace puna::api
