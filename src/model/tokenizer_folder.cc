// SPDX-License-Identifier: Apache-2.0
// The tokenizer files of a Hugging Face folder. tokenizer.json (or Meta's tokenizer.model) makes
// the tokens; the small files beside it say which of them begin and end a text, and hold the chat
// template.
#include <boost/json.hpp>

#include "base/mapped_file.h"
#include "model/tokenizer_parts.h"

namespace puna::model {
namespace {

namespace json = boost::json;

constexpr size_t kMaxSettingsBytes = size_t{16} << 20;

std::string_view text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.size()};
}

// The JSON object in folder/name; empty when there is no such file.
Result<json::object> read_settings(const std::string& folder, std::string_view name) {
  const std::string path = fmt::format("{}/{}", folder, name);
  auto file = MappedFile::open(path);
  if (!file.ok()) {
    if (file.error().code() == ErrorCode::kNotFound) return json::object();
    return std::move(file).error();
  }
  if (file->size() > kMaxSettingsBytes) {
    return Error(ErrorCode::kUnsupported, "{}: {} bytes, more than the limit of {}", path,
                 file->size(), kMaxSettingsBytes);
  }
  boost::system::error_code error;
  json::value document = json::parse(text_of(*file), error);
  if (error) return Error(ErrorCode::kCorrupt, "{}: no valid JSON: {}", path, error.message());
  if (!document.is_object()) return Error(ErrorCode::kCorrupt, "{}: not a JSON object", path);
  return std::move(document.get_object());
}

// A token's name, written as "name" or as {"content": "name"}.
std::string_view token_name(const json::object& settings, std::string_view key) {
  const json::value* value = settings.if_contains(key);
  if (value != nullptr && value->is_object()) value = value->get_object().if_contains("content");
  if (value == nullptr || !value->is_string()) return {};
  return value->get_string();
}

Result<std::optional<TokenId>> named_token(const TokenizerParts& parts, std::string_view name) {
  if (name.empty()) return std::optional<TokenId>();
  for (size_t id = 0; id < parts.tokens.size(); ++id) {
    if (parts.tokens[id].bytes == name) return std::optional(static_cast<TokenId>(id));
  }
  return Error(ErrorCode::kCorrupt,
               "tokenizer_config.json names '{}', which is not in the vocabulary",
               name.substr(0, 40));
}

// "chat_template": a string, or a list of {"name": ..., "template": ...} with one called default.
std::string_view template_text(const json::object& settings) {
  const json::value* value = settings.if_contains("chat_template");
  if (value == nullptr) return {};
  if (value->is_string()) return value->get_string();
  if (!value->is_array()) return {};
  for (const json::value& entry : value->get_array()) {
    if (!entry.is_object()) continue;
    if (token_name(entry.get_object(), "name") == "default") {
      return token_name(entry.get_object(), "template");
    }
  }
  return {};
}

Result<> apply_tokenizer_config(const json::object& settings, TokenizerParts& parts) {
  ASSIGN_OR_RETURN(const auto bos, named_token(parts, token_name(settings, "bos_token")));
  ASSIGN_OR_RETURN(const auto eos, named_token(parts, token_name(settings, "eos_token")));
  if (bos && !parts.adds_bos) parts.bos = bos;
  if (eos) parts.eos = eos;
  const json::value* add_bos = settings.if_contains("add_bos_token");
  if (add_bos != nullptr && add_bos->is_bool() && add_bos->get_bool()) parts.adds_bos = true;
  parts.chat_template = template_text(settings);
  return Ok{};
}

// "eos_token_id": a number or a list of numbers, all of which end an answer.
Result<> apply_generation_config(const json::object& settings, TokenizerParts& parts) {
  const json::value* value = settings.if_contains("eos_token_id");
  if (value == nullptr || value->is_null()) return Ok{};
  const auto add = [&](const json::value& id) {
    if (!id.is_int64() || id.get_int64() < 0 ||
        id.get_int64() >= static_cast<int64_t>(parts.tokens.size())) {
      return false;
    }
    parts.end_of_generation.push_back(static_cast<TokenId>(id.get_int64()));
    return true;
  };
  bool all_good = true;
  if (value->is_array()) {
    for (const json::value& id : value->get_array()) all_good = add(id) && all_good;
  } else {
    all_good = add(*value);
  }
  if (all_good) return Ok{};
  return Error(ErrorCode::kCorrupt,
               "generation_config.json: eos_token_id is not an id of the {} tokens",
               parts.tokens.size());
}

Result<TokenizerParts> read_vocabulary_file(const std::string& folder) {
  const std::string json_path = folder + "/tokenizer.json";
  auto file = MappedFile::open(json_path);
  if (file.ok()) return read_tokenizer_json(text_of(*file));
  if (file.error().code() != ErrorCode::kNotFound) return std::move(file).error();
  const std::string model_path = folder + "/tokenizer.model";
  file = MappedFile::open(model_path);
  if (file.ok()) return read_tiktoken(text_of(*file));
  if (file.error().code() != ErrorCode::kNotFound) return std::move(file).error();
  return Error(ErrorCode::kNotFound, "neither tokenizer.json nor tokenizer.model is in the folder");
}

}  // namespace

Result<TokenizerParts> read_tokenizer_folder(const std::string& folder) {
  auto vocabulary = read_vocabulary_file(folder);
  if (!vocabulary.ok()) return std::move(vocabulary).error().with_context(folder);
  TokenizerParts parts = std::move(vocabulary).value();
  ASSIGN_OR_RETURN(const json::object tokenizer_config,
                   read_settings(folder, "tokenizer_config.json"));
  ASSIGN_OR_RETURN(const json::object generation_config,
                   read_settings(folder, "generation_config.json"));
  auto applied = apply_tokenizer_config(tokenizer_config, parts);
  if (applied.ok()) applied = apply_generation_config(generation_config, parts);
  if (!applied.ok()) return std::move(applied).error().with_context(folder);
  auto jinja = MappedFile::open(folder + "/chat_template.jinja");
  if (jinja.ok()) {
    if (jinja->size() > kMaxSettingsBytes) {
      return Error(ErrorCode::kUnsupported, "{}/chat_template.jinja: too long", folder);
    }
    parts.chat_template = text_of(*jinja);
  }
  return parts;
}

}  // namespace puna::model
