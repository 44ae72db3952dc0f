// SPDX-License-Identifier: Apache-2.0
// Readers of the fields that are more than one number, flag or string.
#include <fmt/format.h>

#include <boost/json.hpp>
#include <charconv>

#include "api/request_fields.h"

namespace puna::api {
namespace {

namespace json = boost::json;

std::string member(std::string_view field, size_t index) {
  return fmt::format("{}[{}]", field, index);
}

MaybeError wrong_count(const Field& field, size_t count, std::string_view what) {
  return bad_field(field.name, "invalid_value",
                   fmt::format("`{}` must hold {:.0f} to {:.0f} {}, but holds {}", field.name,
                               field.low, field.high, what, count));
}

bool count_fits(const Field& field, size_t count) {
  return static_cast<double>(count) >= field.low && static_cast<double>(count) <= field.high;
}

// One token id of a list, in the vocabulary.
MaybeError read_token(const std::string& name, const json::value& value,
                      const RequestLimits& limits, std::vector<TokenId>& out) {
  const std::optional<int64_t> id = as_integer(value);
  if (!value.is_number()) return wrong_type(name, "a token id", value);
  if (!id || *id < 0 || *id >= limits.vocab_size) {
    return bad_field(name, "invalid_value",
                     fmt::format("`{}` must be a token id from 0 to {}, but is {}", name,
                                 limits.vocab_size - 1, show(value)));
  }
  out.push_back(static_cast<TokenId>(*id));
  return {};
}

MaybeError read_token_list(std::string_view name, const json::value& value,
                           const RequestLimits& limits, std::vector<TokenId>& out) {
  const json::array* list = value.if_array();
  if (list == nullptr) return wrong_type(name, "an array of token ids", value);
  out.reserve(list->size());
  for (size_t i = 0; i < list->size(); ++i) {
    if (!(*list)[i].is_int64() || (*list)[i].get_int64() < 0 ||
        (*list)[i].get_int64() >= limits.vocab_size) {
      if (auto error = read_token(member(name, i), (*list)[i], limits, out)) return error;
    } else {
      out.push_back(static_cast<TokenId>((*list)[i].get_int64()));
    }
  }
  return {};
}

// Content as a string, or as parts of which only text is known. Parts are joined by a line break,
// as other servers do for templates that take a string.
MaybeError read_content(const std::string& name, const json::value& value, std::string& out) {
  if (value.is_string()) {
    out = value.get_string();
    return {};
  }
  const json::array* parts = value.if_array();
  if (parts == nullptr) return wrong_type(name, "a string or an array of text parts", value);
  for (size_t i = 0; i < parts->size(); ++i) {
    const std::string part_name = member(name, i);
    const json::object* part = (*parts)[i].if_object();
    if (part == nullptr) return wrong_type(part_name, "an object", (*parts)[i]);
    const json::value* type = part->if_contains("type");
    if (type == nullptr || !type->is_string()) {
      return bad_field(part_name + ".type", "invalid_type",
                       fmt::format("`{}.type` must be a string", part_name));
    }
    if (type->get_string() != "text") {
      return bad_field(part_name, "unsupported_parameter",
                       fmt::format("`{}`: content of type {} is not supported, only \"text\"",
                                   part_name, show(*type)));
    }
    const json::value* text = part->if_contains("text");
    if (text == nullptr || !text->is_string()) {
      return bad_field(part_name + ".text", "invalid_type",
                       fmt::format("`{}.text` must be a string", part_name));
    }
    if (i > 0) out += '\n';
    out += text->get_string();
  }
  return {};
}

// Members of a message that mean something Puna does not do.
MaybeError check_message_members(const std::string& name, const json::object& message) {
  for (const std::string_view key : {"tool_calls", "function_call", "audio"}) {
    const json::value* value = message.if_contains(key);
    if (value == nullptr || value->is_null()) continue;
    if (value->is_array() && value->get_array().empty()) continue;
    return bad_field(fmt::format("{}.{}", name, key), "unsupported_parameter",
                     fmt::format("`{}.{}` is not supported by this server", name, key));
  }
  return {};
}

MaybeError read_message(const std::string& name, const json::value& value,
                        model::ChatMessage& out) {
  const json::object* message = value.if_object();
  if (message == nullptr) return wrong_type(name, "an object", value);
  const json::value* role = message->if_contains("role");
  if (role == nullptr || !role->is_string()) {
    return bad_field(name + ".role", "invalid_type",
                     fmt::format("`{}.role` must be a string", name));
  }
  out.role = role->get_string();
  if (out.role == "developer") out.role = "system";  // OpenAI's newer name for the same thing
  static constexpr std::string_view kRoles[] = {"system", "user", "assistant", "tool"};
  if (std::find(std::begin(kRoles), std::end(kRoles), out.role) == std::end(kRoles)) {
    return bad_field(
        name + ".role", "invalid_value",
        fmt::format("`{}.role` must be system, developer, user, assistant or tool, but is {}", name,
                    show(*role)));
  }
  if (auto error = check_message_members(name, *message)) return error;
  const json::value* content = message->if_contains("content");
  if (content == nullptr || content->is_null()) {
    return bad_field(name + ".content", "missing_required_parameter",
                     fmt::format("`{}.content` is missing", name));
  }
  return read_content(name + ".content", *content, out.content);
}

MaybeError read_bias(const Field& field, const json::key_value_pair& entry,
                     const RequestLimits& limits, ApiRequest& request) {
  const std::string_view key(entry.key().data(), entry.key().size());
  const std::string name = fmt::format("logit_bias[\"{}\"]", key.substr(0, 40));
  TokenId id = -1;
  const auto parsed = std::from_chars(key.data(), key.data() + key.size(), id);
  if (parsed.ec != std::errc() || parsed.ptr != key.data() + key.size() || id < 0 ||
      id >= limits.vocab_size) {
    return bad_field(
        field.name, "invalid_value",
        fmt::format("`{}`: the key must be a token id from 0 to {}", name, limits.vocab_size - 1));
  }
  if (!entry.value().is_number()) return wrong_type(name, "a number", entry.value());
  const double bias = entry.value().to_number<double>();
  if (!(bias >= field.low && bias <= field.high))
    return out_of_range(field, name, show(entry.value()));
  request.logit_bias.emplace_back(id, static_cast<float>(bias));
  return {};
}

}  // namespace

MaybeError read_messages(const Field& field, const json::value& value, const RequestLimits&,
                         ApiRequest& request) {
  const json::array* list = value.if_array();
  if (list == nullptr) return wrong_type(field.name, "an array of messages", value);
  if (!count_fits(field, list->size())) return wrong_count(field, list->size(), "messages");
  auto& messages = request.messages.emplace(list->size());
  for (size_t i = 0; i < list->size(); ++i) {
    if (auto error = read_message(member(field.name, i), (*list)[i], messages[i])) return error;
  }
  return {};
}

MaybeError read_prompt(const Field& field, const json::value& value, const RequestLimits& limits,
                       ApiRequest& request) {
  auto& prompts = request.prompts.emplace();
  if (value.is_string()) {
    prompts.push_back({.text = std::string(value.get_string()), .ids = {}});
    return {};
  }
  const json::array* list = value.if_array();
  if (list == nullptr) {
    return wrong_type(field.name, "a string, an array of strings or of token ids", value);
  }
  if (list->empty()) return wrong_count(field, 0, "prompts");
  if (list->front().is_number()) {  // the ids of one prompt
    Prompt& prompt = prompts.emplace_back();
    prompt.is_ids = true;
    return read_token_list(field.name, value, limits, prompt.ids);
  }
  if (!count_fits(field, list->size())) return wrong_count(field, list->size(), "prompts");
  for (size_t i = 0; i < list->size(); ++i) {
    Prompt& prompt = prompts.emplace_back();
    const json::value& entry = (*list)[i];
    if (entry.is_string()) {
      prompt.text = entry.get_string();
      continue;
    }
    prompt.is_ids = true;
    if (!entry.is_array()) {
      return wrong_type(member(field.name, i), "a string or an array of token ids", entry);
    }
    if (auto error = read_token_list(member(field.name, i), entry, limits, prompt.ids))
      return error;
  }
  return {};
}

MaybeError read_tokens(const Field& field, const json::value& value, const RequestLimits& limits,
                       ApiRequest& request) {
  return read_token_list(field.name, value, limits, request.tokens.emplace());
}

MaybeError read_stop_token_ids(const Field& field, const json::value& value,
                               const RequestLimits& limits, ApiRequest& request) {
  if (value.is_array() && !count_fits(field, value.get_array().size())) {
    return wrong_count(field, value.get_array().size(), "token ids");
  }
  return read_token_list(field.name, value, limits, request.stop_token_ids);
}

MaybeError read_stop(const Field& field, const json::value& value, const RequestLimits&,
                     ApiRequest& request) {
  if (value.is_string() && value.get_string().empty()) return {};  // "" stops nowhere
  const json::array single = {value};
  const json::array* list = value.is_string() ? &single : value.if_array();
  if (list == nullptr) return wrong_type(field.name, "a string or an array of strings", value);
  if (!count_fits(field, list->size())) return wrong_count(field, list->size(), "strings");
  for (size_t i = 0; i < list->size(); ++i) {
    const json::value& entry = (*list)[i];
    if (!entry.is_string()) return wrong_type(member(field.name, i), "a string", entry);
    const size_t bytes = entry.get_string().size();
    if (bytes < 1 || bytes > kMaxStopBytes) {
      return bad_field(field.name, "invalid_value",
                       fmt::format("`{}` must have 1 to {} bytes, but has {}",
                                   member(field.name, i), kMaxStopBytes, bytes));
    }
    request.stop.emplace_back(entry.get_string());
  }
  return {};
}

MaybeError read_logit_bias(const Field& field, const json::value& value,
                           const RequestLimits& limits, ApiRequest& request) {
  const json::object* entries = value.if_object();
  if (entries == nullptr) return wrong_type(field.name, "an object of token ids", value);
  if (entries->size() > engine::kMaxLogitBias) {
    return bad_field(field.name, "invalid_value",
                     fmt::format("`logit_bias` must hold at most {} entries, but holds {}",
                                 engine::kMaxLogitBias, entries->size()));
  }
  for (const json::key_value_pair& entry : *entries) {
    if (auto error = read_bias(field, entry, limits, request)) return error;
  }
  return {};
}

MaybeError read_stream_options(const Field& field, const json::value& value, const RequestLimits&,
                               ApiRequest& request) {
  const json::object* options = value.if_object();
  if (options == nullptr) return wrong_type(field.name, "an object", value);
  const auto read_flag = [&](std::string_view name, bool& target) -> MaybeError {
    const json::value* flag = options->if_contains(name);
    if (flag == nullptr || flag->is_null()) return {};
    if (!flag->is_bool())
      return wrong_type(fmt::format("stream_options.{}", name), "a boolean", *flag);
    target = flag->get_bool();
    return {};
  };
  if (auto error = read_flag("include_usage", request.include_usage)) return error;
  return read_flag("continuous_usage_stats", request.continuous_usage_stats);
}

// OpenAI's free labels: only the task is looked at, and only where it is a string.
MaybeError read_metadata(const Field& field, const json::value& value, const RequestLimits&,
                         ApiRequest& request) {
  const json::object* labels = value.if_object();
  if (labels == nullptr) return wrong_type(field.name, "an object", value);
  const json::value* task = labels->if_contains("task");
  constexpr size_t kLongestName = 64;
  if (task != nullptr && task->is_string() && task->get_string().size() <= kLongestName) {
    request.metadata_task = task->get_string();
  }
  return {};
}

}  // namespace puna::api
