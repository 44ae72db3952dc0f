// SPDX-License-Identifier: Apache-2.0
// Chat templates that Puna knows by name. A model's own Jinja template is never run: it is recognised,
// and its layout written natively. What is not recognised is refused at start, naming --chat-template.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "model/tokenizer.h"

namespace puna::model {

enum class ChatTemplateKind : uint8_t {
  kLlama3,   // Llama 3: <|start_header_id|>role<|end_header_id|>\n\ncontent<|eot_id|>
  kLlama31,  // Llama 3.1, 3.3: as Llama 3 with the "Cutting Knowledge Date" system header
  kLlama32,  // Llama 3.2: as 3.1, with the date of today
  kChatMl,   // <|im_start|>role\ncontent<|im_end|>\n
};

struct ChatMessage {
  std::string role;     // system, user, assistant, tool
  std::string content;
};

class ChatTemplate {
 public:
  // `name` is the --chat-template flag: "llama3", "llama3.1", "llama3.2", "llama3.3", "chatml", or
  // empty to recognise the model's own template.
  static Result<ChatTemplate> choose(std::string_view name, const Tokenizer& tokenizer);

  std::string_view name() const;
  ChatTemplateKind kind() const { return kind_; }

  // The prompt's tokens, BOS included where the template has one. Contents are encoded as plain text,
  // so nobody can smuggle a special token in. Errors: a role that the template does not have.
  // `today` is "26 Jul 2024"-style and is used by kLlama32 only.
  Result<std::vector<TokenId>> encode(const Tokenizer& tokenizer, const std::vector<ChatMessage>& messages,
                                      bool add_generation_prompt, std::string_view today) const;
  // The same as text, for humans and tests.
  Result<std::string> render(const std::vector<ChatMessage>& messages, bool add_generation_prompt,
                             std::string_view today) const;

 private:
  ChatTemplateKind kind_ = ChatTemplateKind::kChatMl;
  // The system message that the model's template inserts when the conversation has none; may be empty.
  std::string default_system_;
};

}  // namespace puna::model
