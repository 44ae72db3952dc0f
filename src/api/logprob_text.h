// SPDX-License-Identifier: Apache-2.0
// The logprobs of one choice as JSON, in OpenAI's two shapes. Tokens are appended as they come;
// write() gives what was appended since the last take, so a stream's pieces joined equal the whole
// answer.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "engine/request.h"
#include "model/tokenizer.h"

namespace puna::api {

class LogprobText {
 public:
  enum class Shape : uint8_t {
    kChat,        // {"content":[{token,logprob,bytes,top_logprobs:[…]}],"refusal":null}
    kCompletion,  // {"tokens":[…],"token_logprobs":[…],"top_logprobs":[{…}],"text_offset":[…]}
  };

  LogprobText(Shape shape, const model::Tokenizer& tokenizer)
      : shape_(shape), tokenizer_(&tokenizer) {}

  // `top`: the alternatives that the request asked for, best first. `in_text`: whether the token's
  // bytes belong to the text (a skipped special token's don't), for the offsets.
  void append(const engine::TokenEvent& event, std::span<const engine::TokenLogprob> top,
              bool in_text);
  bool empty() const { return tokens_.empty(); }
  // Writes the JSON object of the tokens appended since the last call, and forgets them.
  void take(std::string& out);

 private:
  void append_chat(const engine::TokenEvent& event, std::span<const engine::TokenLogprob> top);
  void append_completion(const engine::TokenEvent& event,
                         std::span<const engine::TokenLogprob> top);

  Shape shape_;
  const model::Tokenizer* tokenizer_;
  std::string tokens_;  // JSON list members; kChat puts whole entries here
  std::string token_logprobs_;
  std::string top_logprobs_;
  std::string text_offset_;
  size_t characters_ = 0;  // begun in the text so far
};

}  // namespace puna::api
