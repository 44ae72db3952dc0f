// SPDX-License-Identifier: Apache-2.0
#include "api/logprob_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <string_view>

#include "api/json_text.h"

namespace puna::api {
namespace {

// JSON has no infinity; OpenAI and vLLM write this for what can't be sampled.
constexpr float kImpossible = -9999.0F;

void append_logprob(std::string& out, float logprob) {
  append_json_number(out, std::isfinite(logprob) ? logprob : kImpossible);
}

// A token's text; half a character can't be shown, so its bytes are, as OpenAI does: "\xf0\x9f" in
// chat answers, "bytes:\xf0\x9f" in completions, where the name is a key and must be distinct.
void append_token_name(std::string& out, std::string_view bytes, std::string_view prefix) {
  if (is_utf8(bytes)) {
    append_json_string(out, bytes);
    return;
  }
  std::string escaped(prefix);
  for (const char c : bytes) {
    fmt::format_to(std::back_inserter(escaped), "\\x{:02x}", static_cast<uint8_t>(c));
  }
  append_json_string(out, escaped);
}

void append_bytes(std::string& out, std::string_view bytes) {
  out += '[';
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (i > 0) out += ',';
    append_json_integer(out, static_cast<uint8_t>(bytes[i]));
  }
  out += ']';
}

void append_chat_token(std::string& out, std::string_view bytes, float logprob) {
  out += R"({"token":)";
  append_token_name(out, bytes, "");
  out += R"(,"logprob":)";
  append_logprob(out, logprob);
  out += R"(,"bytes":)";
  append_bytes(out, bytes);
}

}  // namespace

void LogprobText::append(const engine::TokenEvent& event, std::span<const engine::TokenLogprob> top,
                         bool in_text) {
  const std::string_view bytes = tokenizer_->token_bytes(event.token);
  if (shape_ == Shape::kChat) {
    append_chat(event, top);
  } else {
    // A token that goes on inside a character starts where that character starts.
    const bool inside = in_text && !bytes.empty() && is_continuation(bytes[0]) && characters_ > 0;
    if (!text_offset_.empty()) text_offset_ += ',';
    append_json_integer(text_offset_, static_cast<int64_t>(characters_ - (inside ? 1 : 0)));
    append_completion(event, top);
  }
  if (in_text) characters_ += utf8_length(bytes);
}

void LogprobText::append_chat(const engine::TokenEvent& event,
                              std::span<const engine::TokenLogprob> top) {
  if (!tokens_.empty()) tokens_ += ',';
  append_chat_token(tokens_, tokenizer_->token_bytes(event.token), event.logprob);
  tokens_ += R"(,"top_logprobs":[)";
  for (size_t i = 0; i < top.size(); ++i) {
    if (i > 0) tokens_ += ',';
    append_chat_token(tokens_, tokenizer_->token_bytes(top[i].token), top[i].logprob);
    tokens_ += '}';
  }
  tokens_ += "]}";
}

void LogprobText::append_completion(const engine::TokenEvent& event,
                                    std::span<const engine::TokenLogprob> top) {
  const std::string_view separator = tokens_.empty() ? "" : ",";
  constexpr std::string_view kPrefix = "bytes:";
  const auto append_entry = [&](model::TokenId token, float logprob) {
    append_token_name(top_logprobs_, tokenizer_->token_bytes(token), kPrefix);
    top_logprobs_ += ':';
    append_logprob(top_logprobs_, logprob);
  };
  top_logprobs_ += separator;
  top_logprobs_ += '{';
  for (size_t i = 0; i < top.size(); ++i) {
    if (i > 0) top_logprobs_ += ',';
    append_entry(top[i].token, top[i].logprob);
  }
  // OpenAI: the sampled token is always in, so there may be one more than asked for.
  const bool listed = std::any_of(top.begin(), top.end(), [&](const engine::TokenLogprob& entry) {
    return entry.token == event.token;
  });
  if (!listed) {
    if (!top.empty()) top_logprobs_ += ',';
    append_entry(event.token, event.logprob);
  }
  top_logprobs_ += '}';
  token_logprobs_ += separator;
  append_logprob(token_logprobs_, event.logprob);
  tokens_ += separator;
  append_token_name(tokens_, tokenizer_->token_bytes(event.token), kPrefix);
}

void LogprobText::take(std::string& out) {
  if (shape_ == Shape::kChat) {
    out += R"({"content":[)";
    out += tokens_;
    out += R"(],"refusal":null})";
  } else {
    out += R"({"tokens":[)";
    out += tokens_;
    out += R"(],"token_logprobs":[)";
    out += token_logprobs_;
    out += R"(],"top_logprobs":[)";
    out += top_logprobs_;
    out += R"(],"text_offset":[)";
    out += text_offset_;
    out += "]}";
  }
  tokens_.clear();
  token_logprobs_.clear();
  top_logprobs_.clear();
  text_offset_.clear();
}

}  // namespace puna::api
