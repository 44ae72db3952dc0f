// SPDX-License-Identifier: Apache-2.0
#include "load/answer_reader.h"

#include <boost/json.hpp>

namespace puna::load {
namespace {

namespace json = boost::json;

constexpr size_t kMaxErrorText = 300;

const json::object* object_in(const json::object& object, const char* name) {
  const json::value* value = object.if_contains(name);
  return value == nullptr ? nullptr : value->if_object();
}

std::string_view text_in(const json::object& object, const char* name) {
  const json::value* value = object.if_contains(name);
  const json::string* text = value == nullptr ? nullptr : value->if_string();
  return text == nullptr ? std::string_view() : std::string_view(text->data(), text->size());
}

int32_t count_in(const json::object& object, const char* name, int32_t otherwise) {
  const json::value* value = object.if_contains(name);
  const int64_t* number = value == nullptr ? nullptr : value->if_int64();
  return number == nullptr ? otherwise : static_cast<int32_t>(*number);
}

double number_in(const json::object& object, const char* name) {
  const json::value* value = object.if_contains(name);
  return value == nullptr || !value->is_number() ? 0 : value->to_number<double>();
}

// The text that a choice adds; a chunk with a role alone adds none.
std::string_view text_of(const json::object& choice) {
  const json::object* delta = object_in(choice, "delta");
  if (delta == nullptr) return text_in(choice, "text");
  const std::string_view content = text_in(*delta, "content");
  return content.empty() ? text_in(*delta, "reasoning_content") : content;
}

void take_usage(const json::object& usage, Record& record) {
  record.counted_by_server = true;
  record.prompt_tokens = count_in(usage, "prompt_tokens", record.prompt_tokens);
  record.output_tokens = count_in(usage, "completion_tokens", record.output_tokens);
  if (const json::object* details = object_in(usage, "prompt_tokens_details")) {
    record.cached_tokens = count_in(*details, "cached_tokens", 0);
  }
}

}  // namespace

void AnswerReader::feed(std::string_view bytes, TimeNs now_ns) {
  const bool fits = parser_.feed(bytes, [&](std::string_view data) { take_event(data, now_ns); });
  if (!fits) record_.error = "an event of the stream is too long";
}

void AnswerReader::take_event(std::string_view data, TimeNs now_ns) {
  if (data == "[DONE]") {
    done_ = true;
    return;
  }
  json::error_code ec;
  const json::value value = json::parse(json::string_view(data.data(), data.size()), ec);
  const json::object* event = ec ? nullptr : value.if_object();
  if (event == nullptr) {
    record_.error = "an event of the stream is no JSON object";
    return;
  }
  if (event->contains("error")) record_.error = error_message_of(data);
  if (const json::object* usage = object_in(*event, "usage")) take_usage(*usage, record_);
  if (const json::object* timings = object_in(*event, "puna_timings")) {
    record_.quoted_ttft_ms = number_in(*timings, "quoted_ttft_p95_ms");
  }
  const json::value* choices = event->if_contains("choices");
  if (choices == nullptr || !choices->is_array() || choices->get_array().empty()) return;
  const json::object* choice = choices->get_array().front().if_object();
  if (choice == nullptr) return;
  const std::string_view reason = text_in(*choice, "finish_reason");
  if (!reason.empty()) record_.finish_reason = std::string(reason);
  const std::string_view text = text_of(*choice);
  if (text.empty()) return;
  if (pieces_++ == 0) {
    record_.first_ns = now_ns;
  } else {
    record_.gaps_ms.push_back(static_cast<float>(ms_between(record_.last_ns, now_ns)));
  }
  record_.last_ns = now_ns;
  if (keep_text_) record_.text += text;
}

bool AnswerReader::finish() {
  if (!record_.counted_by_server) record_.output_tokens = pieces_;
  if (record_.error.empty() && !done_) record_.error = "the stream ended before [DONE]";
  return record_.error.empty();
}

std::string error_message_of(std::string_view body) {
  json::error_code ec;
  const json::value value = json::parse(json::string_view(body.data(), body.size()), ec);
  std::string_view message = body;
  if (!ec && value.is_object()) {
    if (const json::object* error = object_in(value.get_object(), "error")) {
      const std::string_view text = text_in(*error, "message");
      if (!text.empty()) message = text;
    }
  }
  return std::string(message.substr(0, kMaxErrorText));
}

}  // namespace puna::load
