// SPDX-License-Identifier: Apache-2.0
// Chat templates that Puna knows by name. A model's own Jinja template is never run: it is
// recognised, and its layout written natively. What is not recognised is refused at start, naming
// --chat-template. Immutable, so any thread may use it.
//
//   ASSIGN_OR_RETURN(ChatTemplate chat, ChatTemplate::choose(flag, tokenizer));
//   ASSIGN_OR_RETURN(auto prompt, chat.encode(tokenizer, {{"user", "Hi"}}, true, "26 Jul 2024"));
#pragma once

#include <cstdint>
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
  std::string role;  // system, user, assistant, tool (not for kLlama3)
  std::string content;
};

class ChatTemplate {
 public:
  // `name` is the --chat-template flag: "llama3", "llama3.1", "llama3.2", "llama3.3", "chatml", or
  // empty to recognise the model's own template. Errors: an unknown name, a template that is not
  // recognised, a vocabulary without the template's special tokens.
  static Result<ChatTemplate> choose(std::string_view name, const Tokenizer& tokenizer);
  // By a Jinja text alone.
  static Result<ChatTemplate> recognise(std::string_view jinja);

  std::string_view name() const;
  ChatTemplateKind kind() const { return kind_; }

  // The prompt's tokens, BOS included where the template has one. Contents are encoded as plain
  // text, so nobody can smuggle a special token in. Errors: no messages, a role that the template
  // does not have. `today` is "26 Jul 2024"-style and is used by kLlama32 only.
  Result<std::vector<TokenId>> encode(const Tokenizer& tokenizer,
                                      const std::vector<ChatMessage>& messages,
                                      bool add_generation_prompt, std::string_view today) const;
  // The same as text, for humans and tests.
  Result<std::string> render(const std::vector<ChatMessage>& messages, bool add_generation_prompt,
                             std::string_view today) const;

 private:
  struct Segment {
    std::string text;
    bool is_trusted;
  };

  ChatTemplate(ChatTemplateKind kind, std::string default_system)
      : kind_(kind), default_system_(std::move(default_system)) {}
  Result<std::vector<Segment>> layout(const std::vector<ChatMessage>& messages,
                                      bool add_generation_prompt, std::string_view today) const;
  Result<> check_roles(const std::vector<ChatMessage>& messages) const;
  void lay_out_chatml(const std::vector<ChatMessage>& messages, std::vector<Segment>& out) const;
  void lay_out_llama(const std::vector<ChatMessage>& messages, std::string_view today,
                     std::vector<Segment>& out) const;

  ChatTemplateKind kind_ = ChatTemplateKind::kChatMl;
  // The system message that the model's template inserts when the conversation has none; may be
  // empty.
  std::string default_system_;
};

}  // namespace puna::model
