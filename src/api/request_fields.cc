// SPDX-License-Identifier: Apache-2.0
#include "api/request_fields.h"

#include <fmt/format.h>

#include <boost/json/serialize.hpp>
#include <cmath>

namespace puna::api {
namespace {

namespace json = boost::json;
using R = ApiRequest;

constexpr uint8_t kChat = static_cast<uint8_t>(Endpoint::kChat);
constexpr uint8_t kCompletions = static_cast<uint8_t>(Endpoint::kCompletions);
constexpr uint8_t kTokenize = static_cast<uint8_t>(Endpoint::kTokenize);
constexpr uint8_t kDetokenize = static_cast<uint8_t>(Endpoint::kDetokenize);
constexpr uint8_t kGenerate = kChat | kCompletions;
constexpr uint8_t kAll = kGenerate | kTokenize | kDetokenize;
constexpr double kInt32Max = std::numeric_limits<int32_t>::max();
// All of int64 passes as_integer(); the range of a field is checked on top.
constexpr double kAnyInteger = 0x1p63;

constexpr double kMaxDeadlineMs = 86'400'000;  // a day

constexpr Field refused(std::string_view name, uint8_t endpoints, std::string_view neutral = {}) {
  return {name, endpoints, Refused{neutral}};
}

constexpr Field kFields[] = {
    {"model", kAll, &R::model, 0, 256},
    {"messages", kChat | kTokenize, read_messages, 1, 65536},
    {"prompt", kCompletions | kTokenize, read_prompt, 1, kMaxPrompts},
    {"tokens", kDetokenize, read_tokens, 0, kInt32Max},

    {"temperature", kGenerate, &R::temperature, 0, 100},
    {"top_p", kGenerate, &R::top_p, 0, 1, true},
    {"min_p", kGenerate, &R::min_p, 0, 1},
    {"top_k", kGenerate, &R::top_k, -1, kInt32Max},
    {"repetition_penalty", kGenerate, &R::repetition_penalty, 0, 10, true},
    {"frequency_penalty", kGenerate, &R::frequency_penalty, -2, 2},
    {"presence_penalty", kGenerate, &R::presence_penalty, -2, 2},
    {"logit_bias", kGenerate, read_logit_bias, -100, 100},
    {"seed", kGenerate, &R::seed, -kAnyInteger, kAnyInteger},

    {"max_tokens", kGenerate, &R::max_tokens, 1, kInt32Max},
    {"max_completion_tokens", kGenerate, &R::max_completion_tokens, 1, kInt32Max},
    {"min_tokens", kGenerate, &R::min_tokens, 0, kInt32Max},
    {"stop", kGenerate, read_stop, 0, engine::kMaxStopStrings},
    {"stop_token_ids", kGenerate, read_stop_token_ids, 0, kMaxStopTokenIds},
    {"ignore_eos", kGenerate, &R::ignore_eos},
    {"include_stop_str_in_output", kGenerate, &R::include_stop_str_in_output},
    {"skip_special_tokens", kGenerate, &R::skip_special_tokens},

    {"n", kGenerate, &R::n, 1, engine::kMaxChoices},
    {"best_of", kCompletions, &R::best_of, 1, engine::kMaxChoices},
    {"logprobs", kChat, &R::chat_logprobs},
    {"logprobs", kCompletions, &R::completion_logprobs, 0, engine::kMaxTopLogprobs},
    {"top_logprobs", kChat, &R::top_logprobs, 0, engine::kMaxTopLogprobs},
    {"echo", kCompletions, &R::echo},
    {"stream", kGenerate, &R::stream},
    {"stream_options", kGenerate, read_stream_options},
    {"add_generation_prompt", kChat | kTokenize, &R::add_generation_prompt},
    {"add_special_tokens", kCompletions | kTokenize, &R::add_special_tokens},
    {"cache_salt", kGenerate, &R::cache_salt, 0, 256},
    {"user", kGenerate, &R::user, 0, 4096},
    {"deadline_ms", kGenerate, &R::deadline_ms, 1, kMaxDeadlineMs},
    {"service_tier", kGenerate, &R::service_tier, 0, 64},
    {"priority", kGenerate, &R::priority, -kInt32Max, kInt32Max},
    {"metadata", kGenerate, read_metadata},

    // Known to clients of OpenAI and vLLM, and not done here.
    refused("tools", kChat | kTokenize, "[]"),
    refused("tool_choice", kChat, "\"none\""),
    refused("functions", kChat, "[]"),
    refused("function_call", kChat, "\"none\""),
    refused("response_format", kGenerate, R"({"type":"text"})"),
    refused("audio", kChat),
    refused("modalities", kChat, R"(["text"])"),
    refused("prediction", kChat),
    refused("reasoning_effort", kChat, "\"none\""),
    refused("web_search_options", kChat),
    refused("documents", kChat, "[]"),
    refused("chat_template", kChat | kTokenize),
    refused("chat_template_kwargs", kChat | kTokenize, "{}"),
    refused("continue_final_message", kChat | kTokenize, "false"),
    refused("mm_processor_kwargs", kChat, "{}"),
    refused("echo", kChat, "false"),
    refused("add_special_tokens", kChat, "false"),
    refused("suffix", kCompletions, "\"\""),
    refused("prompt_embeds", kCompletions),
    refused("use_beam_search", kGenerate, "false"),
    refused("length_penalty", kGenerate, "1|1.0"),
    refused("early_stopping", kGenerate, "false"),
    refused("guided_json", kGenerate),
    refused("guided_regex", kGenerate, "\"\""),
    refused("guided_choice", kGenerate, "[]"),
    refused("guided_grammar", kGenerate, "\"\""),
    refused("structured_outputs", kGenerate),
    refused("grammar", kGenerate, "\"\""),
    refused("json_schema", kGenerate),
    refused("bad_words", kGenerate, "[]"),
    refused("allowed_token_ids", kGenerate),
    refused("logits_processors", kGenerate, "[]"),
    refused("prompt_logprobs", kGenerate),
    refused("truncate_prompt_tokens", kGenerate),
    refused("return_tokens_as_token_ids", kGenerate, "false"),
    refused("return_token_ids", kGenerate, "false"),
};

template <typename Limit>
std::string show_limit(Limit value) {
  return value == std::floor(value) ? fmt::format("{:.0f}", value) : fmt::format("{}", value);
}

bool in_range(const Field& field, double value) {
  return value <= field.high && (field.low_open ? value > field.low : value >= field.low);
}

MaybeError read(const Field& field, const json::value& value, float& target) {
  if (!value.is_number()) return wrong_type(field.name, "a number", value);
  const double number = value.to_number<double>();
  if (!in_range(field, number)) return out_of_range(field, field.name, show(value));
  // Again as a float: 1e-50 is above 0, but its float is not.
  const auto rounded = static_cast<float>(number);
  if (!in_range(field, static_cast<double>(rounded))) {
    return out_of_range(field, field.name, show(value));
  }
  target = rounded;
  return {};
}

MaybeError read(const Field& field, const json::value& value, std::optional<int64_t>& target) {
  if (!value.is_number()) return wrong_type(field.name, "an integer", value);
  const std::optional<int64_t> number = as_integer(value);
  if (!number && value.is_double() && std::abs(value.get_double()) < kAnyInteger) {
    return wrong_type(field.name, "an integer", value);
  }
  if (!number || !in_range(field, static_cast<double>(*number))) {
    return out_of_range(field, field.name, show(value));
  }
  target = *number;
  return {};
}

MaybeError read(const Field& field, const json::value& value, bool& target) {
  if (!value.is_bool()) return wrong_type(field.name, "a boolean", value);
  target = value.get_bool();
  return {};
}

MaybeError read(const Field& field, const json::value& value, std::string& target) {
  if (!value.is_string()) return wrong_type(field.name, "a string", value);
  if (static_cast<double>(value.get_string().size()) > field.high) {
    return bad_field(field.name, "string_above_max_length",
                     fmt::format("`{}` must have at most {:.0f} bytes, but has {}", field.name,
                                 field.high, value.get_string().size()));
  }
  target = value.get_string();
  return {};
}

MaybeError check_refused(const Field& field, const json::value& value, std::string_view neutral) {
  const std::string text = json::serialize(value);
  for (std::string_view rest = neutral; !rest.empty();) {
    const size_t bar = rest.find('|');
    if (text == rest.substr(0, bar)) return {};
    rest = bar == std::string_view::npos ? std::string_view() : rest.substr(bar + 1);
  }
  if (value.is_double() && neutral.starts_with("1|") && value.get_double() == 1.0) return {};
  return bad_field(field.name, "unsupported_parameter",
                   fmt::format("`{}` is not supported by this server (value: {}); leave it out",
                               field.name, show(value)));
}

// What a field that is not done here shows of the request's family.
void note_refused(std::string_view field, ApiRequest& request) {
  for (const std::string_view name : {"tools", "functions"}) {
    request.has_tools = request.has_tools || field == name;
  }
  for (const std::string_view name :
       {"response_format", "json_schema", "guided_json", "structured_outputs"}) {
    request.has_response_format = request.has_response_format || field == name;
  }
}

}  // namespace

std::span<const Field> request_fields() { return kFields; }

MaybeError read_field(const Field& field, const json::value& value, const RequestLimits& limits,
                      ApiRequest& request) {
  return std::visit(
      [&](auto target) -> MaybeError {
        using T = decltype(target);
        if constexpr (std::is_same_v<T, FieldReader>) {
          return target(field, value, limits, request);
        } else if constexpr (std::is_same_v<T, Refused>) {
          auto error = check_refused(field, value, target.neutral);
          if (error && limits.only_look) {
            note_refused(field.name, request);
            return {};
          }
          return error;
        } else {
          return read(field, value, request.*target);
        }
      },
      field.target);
}

std::string_view json_kind_name(const json::value& value) {
  switch (value.kind()) {
    case json::kind::null:
      return "null";
    case json::kind::bool_:
      return "a boolean";
    case json::kind::int64:
    case json::kind::uint64:
    case json::kind::double_:
      return "a number";
    case json::kind::string:
      return "a string";
    case json::kind::array:
      return "an array";
    case json::kind::object:
      return "an object";
  }
  return "unknown";
}

std::string show(const json::value& value) {
  constexpr size_t kShown = 40;
  if (value.is_double()) return fmt::format("{}", value.get_double());
  if (value.is_array() || value.is_object()) return std::string(json_kind_name(value));
  std::string text = json::serialize(value);
  if (text.size() <= kShown) return text;
  size_t end = kShown;
  while (end > 0 && (static_cast<uint8_t>(text[end]) & 0xC0U) == 0x80U) --end;
  return text.substr(0, end) + "…";
}

MaybeError wrong_type(std::string_view field, std::string_view wanted, const json::value& value) {
  const bool plain = value.is_number() || value.is_string();
  return bad_field(field, "invalid_type",
                   fmt::format("`{}` must be {}, but is {}{}", field, wanted, json_kind_name(value),
                               plain ? fmt::format(": {}", show(value)) : std::string()));
}

MaybeError out_of_range(const Field& field, std::string_view name, std::string_view shown) {
  if (field.high >= kAnyInteger) {
    return bad_field(
        name, "invalid_value",
        fmt::format("`{}` must fit in a signed 64-bit integer, but is {}", name, shown));
  }
  return bad_field(name, "invalid_value",
                   fmt::format("`{}` must be {} {} and at most {}, but is {}", name,
                               field.low_open ? "above" : "at least", show_limit(field.low),
                               show_limit(field.high), shown));
}

std::optional<int64_t> as_integer(const json::value& value) {
  if (value.is_int64()) return value.get_int64();
  if (value.is_double()) {
    const double number = value.get_double();
    if (number == std::floor(number) && std::abs(number) < kAnyInteger) {
      return static_cast<int64_t>(number);
    }
  }
  return {};
}

}  // namespace puna::api
