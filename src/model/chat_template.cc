// SPDX-License-Identifier: Apache-2.0
#include "model/chat_template.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <span>

#include "base/json_escape.h"
#include "model/utf8.h"

namespace puna::model {
namespace {

constexpr std::string_view kNames = "llama3, llama3.1, llama3.2, llama3.3 or chatml";
// What Llama 3.1 and 3.3 say when nobody gives a date.
constexpr std::string_view kFixedDate = "26 Jul 2024";

// What Python's str.strip(), and so Jinja's trim, takes away.
bool is_python_space(uint32_t code_point) {
  return (code_point >= 0x09 && code_point <= 0x0D) || (code_point >= 0x1C && code_point <= 0x20) ||
         code_point == 0x85 || code_point == 0xA0 || code_point == 0x1680 ||
         (code_point >= 0x2000 && code_point <= 0x200A) || code_point == 0x2028 ||
         code_point == 0x2029 || code_point == 0x202F || code_point == 0x205F ||
         code_point == 0x3000;
}

std::string_view trimmed(std::string_view text) {
  size_t begin = text.size();
  size_t end = 0;
  for (size_t at = 0; at < text.size();) {
    const Utf8Char next = utf8_char_at(text, at);
    const bool is_space =
        next.status == Utf8Char::Status::kValid && is_python_space(next.code_point);
    if (!is_space) {
      begin = std::min(begin, at);
      end = at + next.length;
    }
    at += next.length;
  }
  return begin < end ? text.substr(begin, end - begin) : std::string_view();
}

// Llama 3.1's template passes tool results through `tojson`, which quotes plain text too.
std::string json_quoted(std::string_view text) {
  std::string out = "\"";
  for (const char byte : text) {
    if (needs_json_escape(byte)) {
      append_json_escape(out, byte);
    } else {
      out += byte;
    }
  }
  return out + '"';
}

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size()) {
    text.replace(at, from.size(), to);
  }
}

// The template without what writers of templates vary: white space, written line breaks, the kind
// of quotes, message['role'] for message.role, and the dashes of {%- -%}.
std::string squeezed(std::string_view jinja) {
  std::string text;
  for (const char byte : jinja) {
    if (byte != ' ' && byte != '\n' && byte != '\r' && byte != '\t')
      text += byte == '"' ? '\'' : byte;
  }
  replace_all(text, "\\n", "");
  for (const std::string_view key : {"role", "content"}) {
    replace_all(text, fmt::format("['{}']", key), fmt::format(".{}", key));
  }
  for (const std::string_view mark : {"{%", "{{"})
    replace_all(text, fmt::format("{}-", mark), mark);
  for (const std::string_view mark : {"%}", "}}"})
    replace_all(text, fmt::format("-{}", mark), mark);
  return text;
}

bool has(std::string_view text, std::string_view feature) {
  return text.find(feature) != std::string_view::npos;
}

template <size_t N>
bool has_any(std::string_view text, const std::array<std::string_view, N>& features) {
  return std::any_of(features.begin(), features.end(),
                     [&](auto feature) { return has(text, feature); });
}

template <size_t N>
bool has_all(std::string_view text, const std::array<std::string_view, N>& features) {
  return std::all_of(features.begin(), features.end(),
                     [&](auto feature) { return has(text, feature); });
}

constexpr std::string_view kLlamaMessage =
    "'<|start_header_id|>'+message.role+'<|end_header_id|>'+message.content|trim+'<|eot_id|>'";
constexpr std::string_view kLlamaPrompt = "{{'<|start_header_id|>assistant<|end_header_id|>'}}";

bool is_llama3(std::string_view text) {
  // Anything more than the plain loop, such as tools or a system text of its own, is another
  // template.
  constexpr std::array<std::string_view, 6> kForeign = {"tool",      "raise_exception",
                                                        "eos_token", "{{'<|start_header_id|>system",
                                                        "date",      "message.type"};
  return has_all(text, std::array{kLlamaMessage, kLlamaPrompt}) && !has_any(text, kForeign) &&
         (has(text, "bos_token+content") || has(text, "{{bos_token}}"));
}

bool is_llama31(std::string_view text) {
  constexpr std::array<std::string_view, 8> kFeatures = {
      kLlamaMessage,
      kLlamaPrompt,
      "{{bos_token}}",
      "{{'<|start_header_id|>system<|end_header_id|>'}}",
      "{{'CuttingKnowledgeDate:December2023'}}",
      "{{'TodayDate:'+date_string+''}}",
      "{{system_message}}{{'<|eot_id|>'}}",
      "{{'<|start_header_id|>ipython<|end_header_id|>'}}",
  };
  return has_all(text, kFeatures);
}

// A default system message is written out in the template; nothing when its text is not plain.
std::optional<std::string> chatml_default_system(std::string_view jinja) {
  constexpr std::string_view kBegin = "<|im_start|>system";
  size_t begin = jinja.find(kBegin);
  if (begin == std::string_view::npos) return std::string();
  begin += kBegin.size();
  const size_t end = jinja.find("<|im_end|>", begin);
  if (end == std::string_view::npos) return std::nullopt;
  std::string text(jinja.substr(begin, end - begin));
  replace_all(text, "\\n", "\n");
  if (!text.starts_with('\n') || text.find_first_of("\\'\"{}") != std::string::npos)
    return std::nullopt;
  return text.substr(1);
}

bool is_chatml(std::string_view text, const std::string& default_system) {
  constexpr std::array<std::string_view, 2> kFeatures = {
      "'<|im_start|>'+message.role+''+message.content+'<|im_end|>'",
      "{%ifadd_generation_prompt%}{{'<|im_start|>assistant'}}{%endif%}"};
  // Each of these changes the layout in a way that plain ChatML does not have.
  constexpr std::array<std::string_view, 9> kForeign = {
      "tool",      "think",           "reason", "trim",     "strip",
      "bos_token", "raise_exception", "image",  "eos_token"};
  const bool default_is_known =
      default_system.empty() || has(text, "messages[0].role!='system'%}{{'<|im_start|>system");
  return has_all(text, kFeatures) && !has_any(text, kForeign) && default_is_known;
}

Error unrecognised(std::string_view why) {
  return Error(ErrorCode::kUnsupported, "{}; name its layout with --chat-template {}", why, kNames);
}

}  // namespace

Result<ChatTemplate> ChatTemplate::recognise(std::string_view jinja) {
  if (trimmed(jinja).empty()) return unrecognised("the model has no chat template");
  const std::string text = squeezed(jinja);
  if (is_llama31(text)) {
    const bool asks_clock = has(text, "strftime_now(");
    return ChatTemplate(asks_clock ? ChatTemplateKind::kLlama32 : ChatTemplateKind::kLlama31, "");
  }
  if (is_llama3(text)) return ChatTemplate(ChatTemplateKind::kLlama3, "");
  auto default_system = chatml_default_system(jinja);
  if (default_system && is_chatml(text, *default_system)) {
    return ChatTemplate(ChatTemplateKind::kChatMl, std::move(*default_system));
  }
  return unrecognised("the model's chat template is not one that Puna knows");
}

Result<ChatTemplate> ChatTemplate::choose(std::string_view name, const Tokenizer& tokenizer) {
  ChatTemplate chosen(ChatTemplateKind::kChatMl, "");
  if (name.empty()) {
    ASSIGN_OR_RETURN(chosen, recognise(tokenizer.chat_template()));
  } else if (name == "llama3") {
    chosen.kind_ = ChatTemplateKind::kLlama3;
  } else if (name == "llama3.1" || name == "llama3.3") {
    chosen.kind_ = ChatTemplateKind::kLlama31;
  } else if (name == "llama3.2") {
    chosen.kind_ = ChatTemplateKind::kLlama32;
  } else if (name != "chatml") {
    return Error(ErrorCode::kInvalidArgument, "--chat-template '{}' is not one of {}", name,
                 kNames);
  }
  static constexpr std::array<std::string_view, 4> kLlamaTokens = {
      "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"};
  static constexpr std::array<std::string_view, 2> kChatMlTokens = {"<|im_start|>", "<|im_end|>"};
  const bool is_chatml_kind = chosen.kind_ == ChatTemplateKind::kChatMl;
  const auto tokens = is_chatml_kind ? std::span<const std::string_view>(kChatMlTokens)
                                     : std::span<const std::string_view>(kLlamaTokens);
  for (const std::string_view token : tokens) {
    const auto id = tokenizer.find(token);
    if (id && tokenizer.is_special(*id)) continue;
    return Error(
        ErrorCode::kUnsupported,
        "the chat template {} needs the special token {}, which the model's vocabulary lacks; "
        "name another one with --chat-template",
        chosen.name(), token);
  }
  return chosen;
}

std::string_view ChatTemplate::name() const {
  switch (kind_) {
    case ChatTemplateKind::kLlama3:
      return "llama3";
    case ChatTemplateKind::kLlama31:
      return "llama3.1";
    case ChatTemplateKind::kLlama32:
      return "llama3.2";
    case ChatTemplateKind::kChatMl:
      return "chatml";
  }
  return "";
}

Result<> ChatTemplate::check_roles(const std::vector<ChatMessage>& messages) const {
  if (messages.empty()) return Error(ErrorCode::kInvalidArgument, "messages is empty");
  const bool has_tool = kind_ != ChatTemplateKind::kLlama3;
  for (size_t i = 0; i < messages.size(); ++i) {
    const std::string& role = messages[i].role;
    if (role == "system" || role == "user" || role == "assistant") continue;
    if (role == "tool" && has_tool) continue;
    return Error(ErrorCode::kInvalidArgument,
                 "messages[{}].role is '{}'; the chat template {} has system, user{} assistant{}",
                 i, role.substr(0, 40), name(), has_tool ? "," : " and",
                 has_tool ? " and tool" : "");
  }
  return Ok{};
}

void ChatTemplate::lay_out_chatml(const std::vector<ChatMessage>& messages,
                                  std::vector<Segment>& out) const {
  const auto add = [&](std::string_view role, std::string_view content) {
    out.push_back({fmt::format("<|im_start|>{}\n", role), true});
    out.push_back({std::string(content), false});
    out.push_back({"<|im_end|>\n", true});
  };
  if (!default_system_.empty() && messages[0].role != "system") add("system", default_system_);
  for (const ChatMessage& message : messages) add(message.role, message.content);
}

void ChatTemplate::lay_out_llama(const std::vector<ChatMessage>& messages, std::string_view today,
                                 std::vector<Segment>& out) const {
  const auto add = [&](std::string_view role, std::string content) {
    out.push_back({fmt::format("<|start_header_id|>{}<|end_header_id|>\n\n", role), true});
    out.push_back({std::move(content), false});
    out.push_back({"<|eot_id|>", true});
  };
  out.push_back({"<|begin_of_text|>", true});
  size_t first = 0;
  if (kind_ != ChatTemplateKind::kLlama3) {
    const bool has_system = messages[0].role == "system";
    first = has_system ? 1 : 0;
    add("system", fmt::format("Cutting Knowledge Date: December 2023\nToday Date: {}\n\n{}",
                              kind_ == ChatTemplateKind::kLlama32 ? today : kFixedDate,
                              has_system ? trimmed(messages[0].content) : std::string_view()));
  }
  for (size_t i = first; i < messages.size(); ++i) {
    const ChatMessage& message = messages[i];
    if (message.role == "tool") {
      add("ipython", json_quoted(message.content));
    } else {
      add(message.role, std::string(trimmed(message.content)));
    }
  }
}

Result<std::vector<ChatTemplate::Segment>> ChatTemplate::layout(
    const std::vector<ChatMessage>& messages, bool add_generation_prompt,
    std::string_view today) const {
  RETURN_IF_ERROR(check_roles(messages));
  std::vector<Segment> segments;
  if (kind_ == ChatTemplateKind::kChatMl) {
    lay_out_chatml(messages, segments);
    if (add_generation_prompt) segments.push_back({"<|im_start|>assistant\n", true});
  } else {
    lay_out_llama(messages, today, segments);
    if (add_generation_prompt) {
      segments.push_back({"<|start_header_id|>assistant<|end_header_id|>\n\n", true});
    }
  }
  return segments;
}

Result<std::vector<TokenId>> ChatTemplate::encode(const Tokenizer& tokenizer,
                                                  const std::vector<ChatMessage>& messages,
                                                  bool add_generation_prompt,
                                                  std::string_view today) const {
  ASSIGN_OR_RETURN(const std::vector<Segment> segments,
                   layout(messages, add_generation_prompt, today));
  std::vector<TextPiece> pieces;
  pieces.reserve(segments.size());
  for (const Segment& segment : segments) pieces.push_back({segment.text, segment.is_trusted});
  return tokenizer.encode(pieces, /*add_bos=*/false);  // the template writes its own
}

Result<std::string> ChatTemplate::render(const std::vector<ChatMessage>& messages,
                                         bool add_generation_prompt, std::string_view today) const {
  ASSIGN_OR_RETURN(const std::vector<Segment> segments,
                   layout(messages, add_generation_prompt, today));
  std::string text;
  for (const Segment& segment : segments) text += segment.text;
  return text;
}

}  // namespace puna::model
