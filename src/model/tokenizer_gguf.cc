// SPDX-License-Identifier: Apache-2.0
// A tokenizer from GGUF metadata, the keys `tokenizer.ggml.*`. Source: ggml docs/gguf.md.
#include "model/tokenizer_parts.h"

namespace puna::model {
namespace {

// tokenizer.ggml.token_type
enum class GgufTokenType : int64_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

std::optional<int64_t> as_integer(const formats::GgufScalar& value) {
  if (const auto* number = std::get_if<int64_t>(&value)) return *number;
  if (const auto* number = std::get_if<uint64_t>(&value)) return static_cast<int64_t>(*number);
  return std::nullopt;
}

Result<const formats::GgufArray*> string_array(const formats::GgufFile& file,
                                               std::string_view key) {
  const formats::GgufArray* array = file.get_array(key);
  if (array == nullptr) return Error(ErrorCode::kCorrupt, "the key {} is missing", key);
  if (array->element_type != formats::GgufValueType::kString) {
    return Error(ErrorCode::kCorrupt, "{} is not an array of strings", key);
  }
  return array;
}

Result<> read_tokens(const formats::GgufFile& file, std::vector<TokenPart>& tokens) {
  ASSIGN_OR_RETURN(const formats::GgufArray* names, string_array(file, "tokenizer.ggml.tokens"));
  const formats::GgufArray* types = file.get_array("tokenizer.ggml.token_type");
  if (types != nullptr && types->values.size() != names->values.size()) {
    return Error(ErrorCode::kCorrupt, "tokenizer.ggml.token_type has {} values for {} tokens",
                 types->values.size(), names->values.size());
  }
  if (names->values.size() > kMaxVocabulary) {
    return Error(ErrorCode::kUnsupported, "the vocabulary has {} tokens, more than the limit of {}",
                 names->values.size(), kMaxVocabulary);
  }
  tokens.reserve(names->values.size());
  for (size_t id = 0; id < names->values.size(); ++id) {
    const auto name = std::get<std::string_view>(names->values[id]);
    const auto type = types == nullptr ? std::optional<int64_t>(1) : as_integer(types->values[id]);
    if (!type || *type < 1 || *type > 6) {
      return Error(ErrorCode::kCorrupt,
                   "tokenizer.ggml.token_type of token {} is not one of 1 to 6", id);
    }
    TokenPart token;
    switch (static_cast<GgufTokenType>(*type)) {
      case GgufTokenType::kNormal:
      case GgufTokenType::kByte:
        if (auto bytes = spelled_bytes(name)) {
          token = {.bytes = std::move(*bytes), .is_word = true};
        } else {
          token.bytes = name;  // not in the byte alphabet: stands for its own text, never encoded
        }
        break;
      case GgufTokenType::kUnknown:
      case GgufTokenType::kControl:
        token = {.bytes = std::string(name), .is_added = true, .is_special = true};
        break;
      case GgufTokenType::kUserDefined:
        token = {.bytes = std::string(name), .is_added = true};
        break;
      case GgufTokenType::kUnused:
        token.bytes = name;
        break;
    }
    tokens.push_back(std::move(token));
  }
  return Ok{};
}

Result<> read_merges(const formats::GgufFile& file, TokenizerParts& parts) {
  ASSIGN_OR_RETURN(const formats::GgufArray* merges, string_array(file, "tokenizer.ggml.merges"));
  WordMap words(parts.tokens.size());
  for (size_t id = 0; id < parts.tokens.size(); ++id) {
    if (parts.tokens[id].is_word) words.insert(parts.tokens[id].bytes, static_cast<TokenId>(id));
  }
  parts.merges.reserve(merges->values.size());
  for (size_t i = 0; i < merges->values.size(); ++i) {
    const auto text = std::get<std::string_view>(merges->values[i]);
    const size_t space = text.find(' ', 1);
    const auto left = spelled_bytes(text.substr(0, space));
    const auto right =
        space == std::string_view::npos ? std::nullopt : spelled_bytes(text.substr(space + 1));
    if (!left || !right) {
      return Error(ErrorCode::kCorrupt, "tokenizer.ggml.merges[{}] is not two tokens: '{}'", i,
                   text.substr(0, 60));
    }
    const MergePart merge{words.find(*left), words.find(*right), words.find(*left + *right)};
    if (merge.left == kNoToken || merge.right == kNoToken || merge.merged == kNoToken) {
      return Error(
          ErrorCode::kCorrupt,
          "tokenizer.ggml.merges[{}] uses or makes a token that the vocabulary lacks: '{}'", i,
          text.substr(0, 60));
    }
    parts.merges.push_back(merge);
  }
  return Ok{};
}

Result<std::optional<TokenId>> read_id(const formats::GgufFile& file, std::string_view key,
                                       size_t vocab_size) {
  if (file.find(key) == nullptr) return std::optional<TokenId>();
  const auto id = file.get_u64(key);
  if (!id || *id >= vocab_size) {
    return Error(ErrorCode::kCorrupt, "{} is not an id of the {} tokens", key, vocab_size);
  }
  return std::optional(static_cast<TokenId>(*id));
}

}  // namespace

Result<TokenizerParts> read_gguf_tokenizer(const formats::GgufFile& file) {
  const auto model = file.get_string("tokenizer.ggml.model");
  if (!model) return Error(ErrorCode::kCorrupt, "the key tokenizer.ggml.model is missing");
  if (*model != "gpt2") {
    return Error(ErrorCode::kUnsupported,
                 "tokenizer.ggml.model is '{}'; only 'gpt2' (byte-level BPE) is supported", *model);
  }
  const std::string_view pre = file.get_string("tokenizer.ggml.pre").value_or("");
  const auto kind = find_pretokenizer(pre);
  if (!kind) {
    return Error(ErrorCode::kUnsupported, "tokenizer.ggml.pre is '{}'; supported are {}", pre,
                 kPretokenizerNames);
  }
  TokenizerParts parts;
  parts.pretokenizer = *kind;
  parts.words_first = *kind == PretokenizerKind::kLlama3;
  RETURN_IF_ERROR(read_tokens(file, parts.tokens));
  RETURN_IF_ERROR(read_merges(file, parts));

  const size_t vocab_size = parts.tokens.size();
  ASSIGN_OR_RETURN(parts.bos, read_id(file, "tokenizer.ggml.bos_token_id", vocab_size));
  ASSIGN_OR_RETURN(parts.eos, read_id(file, "tokenizer.ggml.eos_token_id", vocab_size));
  for (const std::string_view key :
       {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
    ASSIGN_OR_RETURN(const std::optional<TokenId> id, read_id(file, key, vocab_size));
    if (id) parts.end_of_generation.push_back(*id);
  }
  const bool default_adds_bos = *kind == PretokenizerKind::kLlama3 && parts.bos.has_value();
  parts.adds_bos = file.get_bool("tokenizer.ggml.add_bos_token").value_or(default_adds_bos);
  parts.chat_template = file.get_string("tokenizer.chat_template").value_or("");
  return parts;
}

}  // namespace puna::model
