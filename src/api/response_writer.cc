// SPDX-License-Identifier: Apache-2.0
#include "api/response_writer.h"

#include "api/json_text.h"

namespace puna::api {
namespace {

void append_logprobs_and_finish(std::string& out, const ChoiceText& choice) {
  out += R"(,"logprobs":)";
  out += choice.logprobs.empty() ? std::string_view("null") : choice.logprobs;
  out += R"(,"finish_reason":)";
  if (choice.finish == engine::FinishReason::kNone) {
    out += "null}";
  } else {
    append_json_string(out, finish_reason_name(choice.finish));
    out += '}';
  }
}

void append_index(std::string& out, const ChoiceText& choice) {
  out += R"({"index":)";
  append_json_integer(out, choice.index);
}

}  // namespace

void append_usage(std::string& out, const Usage& usage) {
  out += R"({"prompt_tokens":)";
  append_json_integer(out, usage.prompt_tokens);
  out += R"(,"completion_tokens":)";
  append_json_integer(out, usage.completion_tokens);
  out += R"(,"total_tokens":)";
  append_json_integer(out, usage.prompt_tokens + usage.completion_tokens);
  out += R"(,"prompt_tokens_details":{"cached_tokens":)";
  append_json_integer(out, usage.cached_tokens);
  out += "}}";
}

std::string_view finish_reason_name(engine::FinishReason reason) {
  switch (reason) {
    case engine::FinishReason::kNone:
      return "";
    case engine::FinishReason::kStop:
      return "stop";
    case engine::FinishReason::kLength:
      return "length";
    case engine::FinishReason::kCancelled:
      return "abort";
    case engine::FinishReason::kDeadline:
      return "deadline";
    case engine::FinishReason::kError:
      return "error";
  }
  return "";
}

ResponseWriter::ResponseWriter(const Config& config)
    : chat_(config.chat), usage_key_(config.stream && config.usage_key) {
  prefix_ = R"({"id":)";
  append_json_string(prefix_, config.id);
  prefix_ += R"(,"object":)";
  append_json_string(prefix_, !config.chat    ? "text_completion"
                              : config.stream ? "chat.completion.chunk"
                                              : "chat.completion");
  prefix_ += R"(,"created":)";
  append_json_integer(prefix_, config.created_s);
  prefix_ += R"(,"model":)";
  append_json_string(prefix_, config.model);
  prefix_ += R"(,"system_fingerprint":)";
  append_json_string(prefix_, config.fingerprint);
  prefix_ += R"(,"choices":[)";
}

void ResponseWriter::append_chunk(std::string& out, const ChoiceText& choice, const Usage* usage,
                                  std::string_view extra) const {
  out += "data: ";
  out += prefix_;
  append_chunk_choice(out, choice);
  out += ']';
  if (usage != nullptr) {
    out += R"(,"usage":)";
    append_usage(out, *usage);
  } else if (usage_key_) {
    out += R"(,"usage":null)";
  }
  out += extra;
  out += "}\n\n";
}

void ResponseWriter::append_usage_chunk(std::string& out, const Usage& usage,
                                        std::string_view extra) const {
  out += "data: ";
  out += prefix_;
  out += R"(],"usage":)";
  append_usage(out, usage);
  out += extra;
  out += "}\n\n";
}

void ResponseWriter::append_chunk_choice(std::string& out, const ChoiceText& choice) const {
  append_index(out, choice);
  if (chat_) {
    out += choice.first ? R"(,"delta":{"role":"assistant","content":)" : R"(,"delta":{"content":)";
    append_json_string(out, choice.text);
    out += '}';
  } else {
    out += R"(,"text":)";
    append_json_string(out, choice.text);
  }
  append_logprobs_and_finish(out, choice);
}

void ResponseWriter::append_choice(std::string& out, const ChoiceText& choice) const {
  append_index(out, choice);
  out += chat_ ? R"(,"message":{"role":"assistant","content":)" : R"(,"text":)";
  append_json_string(out, choice.text);
  if (chat_) out += R"(,"refusal":null})";
  append_logprobs_and_finish(out, choice);
}

void ResponseWriter::end(std::string& out, const Usage& usage, std::string_view extra) {
  out += R"(],"usage":)";
  append_usage(out, usage);
  out += extra;
  out += '}';
}

}  // namespace puna::api
