// SPDX-License-Identifier: Apache-2.0
// A request body, read and checked: what it may hold stands in the one table of request_fields.cc.
// A parsed request is in range everywhere, so that nothing a client sends can reach a CHECK further
// in.
//
//   ApiRequest request;
//   if (auto error = parse_request(Endpoint::kChat, body, limits, request)) return
//   error_response(*error);
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/api_error.h"
#include "engine/request.h"
#include "model/chat_template.h"
#include "model/tokenizer.h"

namespace puna::api {

using model::TokenId;

// Bits, so that a field of the table can name several.
enum class Endpoint : uint8_t { kChat = 1, kCompletions = 2, kTokenize = 4, kDetokenize = 8 };

// What the served model allows.
struct RequestLimits {
  int32_t vocab_size = 0;
  int32_t max_model_len = 0;
  bool only_look = false;  // fields that are not done here are noted, not refused
};

inline constexpr int kMaxPrompts = engine::kMaxChoices;         // prompts in one call
inline constexpr int kMaxChoicesPerCall = engine::kMaxChoices;  // prompts × n
inline constexpr int kMaxStopBytes = 1024;                      // of one stop string
inline constexpr int kMaxStopTokenIds = 256;

struct Prompt {
  std::string text;
  std::vector<TokenId> ids;
  bool is_ids = false;
};

struct ApiRequest {
  Endpoint endpoint = Endpoint::kChat;
  std::string model;  // empty: not named
  std::optional<std::vector<model::ChatMessage>> messages;
  std::optional<std::vector<Prompt>> prompts;
  std::optional<std::vector<TokenId>> tokens;  // detokenize

  float temperature = 1.0F;
  float top_p = 1.0F;
  float min_p = 0.0F;
  float repetition_penalty = 1.0F;
  float frequency_penalty = 0.0F;
  float presence_penalty = 0.0F;
  std::optional<int64_t> top_k;  // -1 and 0: off
  std::vector<std::pair<TokenId, float>> logit_bias;
  std::optional<int64_t> seed;

  std::optional<int64_t> max_tokens;
  std::optional<int64_t> max_completion_tokens;  // wins over max_tokens
  std::optional<int64_t> min_tokens;
  std::vector<TokenId> stop_token_ids;
  std::vector<std::string> stop;
  bool ignore_eos = false;
  bool include_stop_str_in_output = false;
  bool skip_special_tokens = true;

  std::optional<int64_t> n;
  std::optional<int64_t> best_of;
  bool chat_logprobs = false;
  std::optional<int64_t> completion_logprobs;
  std::optional<int64_t> top_logprobs;
  bool echo = false;
  bool stream = false;
  bool include_usage = false;
  bool continuous_usage_stats = false;
  bool add_generation_prompt = true;
  bool add_special_tokens = true;
  std::string cache_salt;
  std::string user;
  std::optional<int64_t> deadline_ms;  // from the request's arrival
  std::string service_tier;            // OpenAI's: "flex" waits for others
  std::optional<int64_t> priority;     // vLLM's: above 0 waits for others
  std::string metadata_task;           // metadata.task: the family of the request, maybe
  // What else shows the family; both are refused unless RequestLimits::only_look.
  bool has_tools = false;
  bool has_response_format = false;

  bool wants_logprobs() const { return chat_logprobs || completion_logprobs.has_value(); }
  // For engine::SamplingParams::top_logprobs.
  int32_t engine_top_logprobs() const;
  int32_t choices() const { return static_cast<int32_t>(n.value_or(1)); }
  std::optional<int64_t> output_limit() const {
    return max_completion_tokens ? max_completion_tokens : max_tokens;
  }
};

MaybeError parse_request(Endpoint endpoint, std::string_view body, const RequestLimits& limits,
                         ApiRequest& request);

}  // namespace puna::api
