// SPDX-License-Identifier: Apache-2.0
// A tokenizer from Hugging Face's tokenizer.json: byte-level BPE with a split pattern that Puna
// knows. Everything in the file that would change the tokens and is not supported is refused by
// name.
#include <boost/json.hpp>

#include "model/tokenizer_parts.h"

namespace puna::model {
namespace {

namespace json = boost::json;

Error corrupt(std::string_view problem) {
  return Error(ErrorCode::kCorrupt, "tokenizer.json: {}", problem);
}

Error unsupported(std::string_view what) {
  return Error(ErrorCode::kUnsupported, "tokenizer.json: {} is not supported", what);
}

// A member of an object; null when there is none or it is JSON's null.
const json::value* member(const json::object& object, std::string_view key) {
  const json::value* value = object.if_contains(key);
  return value == nullptr || value->is_null() ? nullptr : value;
}

const json::object* object_member(const json::object& object, std::string_view key) {
  const json::value* value = member(object, key);
  return value == nullptr ? nullptr : value->if_object();
}

const json::array* array_member(const json::object& object, std::string_view key) {
  const json::value* value = member(object, key);
  return value == nullptr ? nullptr : value->if_array();
}

std::string_view string_member(const json::object& object, std::string_view key) {
  const json::value* value = member(object, key);
  const json::string* text = value == nullptr ? nullptr : value->if_string();
  return text == nullptr ? std::string_view() : std::string_view(*text);
}

bool true_member(const json::object& object, std::string_view key, bool otherwise = false) {
  const json::value* value = member(object, key);
  const bool* truth = value == nullptr ? nullptr : value->if_bool();
  return truth == nullptr ? otherwise : *truth;
}

Result<size_t> token_id(const json::value* value, std::string_view name) {
  int64_t id = -1;
  if (value != nullptr && value->is_int64()) id = value->get_int64();
  if (id < 0 || id >= static_cast<int64_t>(kMaxVocabulary)) {
    return Error(ErrorCode::kCorrupt, "tokenizer.json: the id of token '{}' is not in 0 to {}",
                 name.substr(0, 40), kMaxVocabulary - 1);
  }
  return static_cast<size_t>(id);
}

// Tokens by id, and which ids are taken.
class TokenList {
 public:
  TokenPart& at(size_t id) {
    if (id >= tokens_.size()) {
      tokens_.resize(id + 1);
      is_taken_.resize(id + 1);
    }
    return tokens_[id];
  }
  bool is_taken(size_t id) const { return id < is_taken_.size() && is_taken_[id]; }
  void take(size_t id) { is_taken_[id] = true; }

  Result<std::vector<TokenPart>> finish() && {
    for (size_t id = 0; id < is_taken_.size(); ++id) {
      if (is_taken_[id]) continue;
      return Error(ErrorCode::kCorrupt, "tokenizer.json: no token has the id {} (of {})", id,
                   is_taken_.size());
    }
    return std::move(tokens_);
  }

 private:
  std::vector<TokenPart> tokens_;
  std::vector<bool> is_taken_;
};

Result<> read_vocabulary(const json::object& model, TokenList& tokens) {
  const json::object* vocabulary = object_member(model, "vocab");
  if (vocabulary == nullptr) return corrupt("model.vocab is not an object");
  for (const auto& [key, value] : *vocabulary) {
    const std::string_view name = key;
    ASSIGN_OR_RETURN(const size_t id, token_id(&value, name));
    TokenPart& token = tokens.at(id);
    if (tokens.is_taken(id)) {
      return Error(ErrorCode::kCorrupt, "tokenizer.json: two tokens have the id {}; one is '{}'",
                   id, name.substr(0, 40));
    }
    tokens.take(id);
    if (auto bytes = spelled_bytes(name); bytes && !bytes->empty()) {
      token = {.bytes = std::move(*bytes), .is_word = true};
    } else {
      token.bytes = name;  // not in the byte alphabet: stands for its own text, never encoded
    }
  }
  return Ok{};
}

Result<> read_added_tokens(const json::object& root, const json::object& model, TokenList& tokens) {
  const json::array* added = array_member(root, "added_tokens");
  if (added == nullptr) return Ok{};
  const json::object* vocabulary = object_member(model, "vocab");
  for (const json::value& entry : *added) {
    const json::object* fields = entry.if_object();
    if (fields == nullptr) return corrupt("added_tokens holds something that is no object");
    const std::string_view name = string_member(*fields, "content");
    ASSIGN_OR_RETURN(const size_t id, token_id(member(*fields, "id"), name));
    for (const std::string_view flag : {"lstrip", "rstrip", "single_word"}) {
      if (!true_member(*fields, flag)) continue;
      return unsupported(fmt::format("the added token '{}' with {}", name.substr(0, 40), flag));
    }
    TokenPart& token = tokens.at(id);
    const json::value* in_vocabulary = vocabulary->if_contains(name);
    const bool is_same = in_vocabulary != nullptr && in_vocabulary->is_int64() &&
                         static_cast<size_t>(in_vocabulary->get_int64()) == id;
    if ((tokens.is_taken(id) || in_vocabulary != nullptr) && !is_same) {
      return Error(ErrorCode::kCorrupt,
                   "tokenizer.json: the added token '{}' with the id {} contradicts model.vocab",
                   name.substr(0, 40), id);
    }
    if (token.is_added) {
      return Error(ErrorCode::kCorrupt, "tokenizer.json: two added tokens have the id {}", id);
    }
    const bool is_special = true_member(*fields, "special");
    // BPE may still make a plain added token; a special one only ever comes from its name.
    token.is_word = token.is_word && !is_special && token.bytes == name;
    token.bytes = name;
    token.is_added = true;
    token.is_special = is_special;
    tokens.take(id);
  }
  return Ok{};
}

// "left right", or ["left", "right"]; nothing when it is neither.
std::optional<std::pair<std::string_view, std::string_view>> merge_names(const json::value& merge) {
  if (const json::string* text = merge.if_string()) {
    const std::string_view both = *text;
    const size_t space = both.find(' ');
    if (space == std::string_view::npos) return std::nullopt;
    return std::pair(both.substr(0, space), both.substr(space + 1));
  }
  const json::array* pair = merge.if_array();
  if (pair == nullptr || pair->size() != 2) return std::nullopt;
  const json::string* left = (*pair)[0].if_string();
  const json::string* right = (*pair)[1].if_string();
  if (left == nullptr || right == nullptr) return std::nullopt;
  return std::pair<std::string_view, std::string_view>(*left, *right);
}

Result<> read_merges(const json::object& model, TokenizerParts& parts) {
  const json::array* merges = array_member(model, "merges");
  if (merges == nullptr) return corrupt("model.merges is not an array");
  WordMap words(parts.tokens.size());
  for (size_t id = 0; id < parts.tokens.size(); ++id) {
    if (parts.tokens[id].is_word) words.insert(parts.tokens[id].bytes, static_cast<TokenId>(id));
  }
  parts.merges.reserve(merges->size());
  for (size_t i = 0; i < merges->size(); ++i) {
    const auto names = merge_names((*merges)[i]);
    const auto left = names ? spelled_bytes(names->first) : std::nullopt;
    const auto right = names ? spelled_bytes(names->second) : std::nullopt;
    if (!left || !right) {
      return Error(ErrorCode::kCorrupt, "tokenizer.json: model.merges[{}] is not two tokens", i);
    }
    const MergePart merge{words.find(*left), words.find(*right), words.find(*left + *right)};
    if (merge.left == kNoToken || merge.right == kNoToken || merge.merged == kNoToken) {
      return Error(ErrorCode::kCorrupt,
                   "tokenizer.json: model.merges[{}] ('{}' + '{}') uses or makes a token that the "
                   "vocabulary lacks",
                   i, names->first.substr(0, 40), names->second.substr(0, 40));
    }
    parts.merges.push_back(merge);
  }
  return Ok{};
}

Result<> check_model(const json::object& model) {
  const std::string_view type = string_member(model, "type");
  // Old files leave the type out; then vocab and merges tell that it is BPE.
  if (!type.empty() && type != "BPE") return unsupported(fmt::format("the model type '{}'", type));
  if (true_member(model, "byte_fallback")) return unsupported("byte_fallback");
  if (member(model, "dropout") != nullptr) return unsupported("BPE dropout");
  for (const std::string_view key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!string_member(model, key).empty()) return unsupported(key);
  }
  return Ok{};
}

// HF would write the unknown token where Puna writes nothing; that can only happen when a byte is
// missing.
Result<> check_unknown_token(const json::object& model, const std::vector<TokenPart>& tokens) {
  if (string_member(model, "unk_token").empty()) return Ok{};
  std::array<bool, 256> has_byte{};
  for (const TokenPart& token : tokens) {
    if (token.is_word && token.bytes.size() == 1)
      has_byte[static_cast<uint8_t>(token.bytes[0])] = true;
  }
  for (const bool has : has_byte) {
    if (!has) return unsupported("unk_token with a vocabulary that lacks some bytes");
  }
  return Ok{};
}

// The steps of a pre-tokenizer or post-processor: itself, or the members of a Sequence.
Result<std::vector<const json::object*>> steps_of(const json::value& value,
                                                  std::string_view list_key) {
  const json::object* whole = value.if_object();
  if (whole == nullptr) return corrupt("a pre_tokenizer or post_processor is no object");
  std::vector<const json::object*> steps;
  if (string_member(*whole, "type") != "Sequence") {
    steps.push_back(whole);
    return steps;
  }
  const json::array* list = array_member(*whole, list_key);
  if (list == nullptr) return corrupt("a Sequence has no steps");
  for (const json::value& step : *list) {
    if (!step.is_object()) return corrupt("a step of a Sequence is no object");
    steps.push_back(&step.get_object());
  }
  return steps;
}

Result<PretokenizerKind> split_kind(const json::object& step) {
  const json::object* pattern = object_member(step, "pattern");
  const std::string_view regex =
      pattern == nullptr ? std::string_view() : string_member(*pattern, "Regex");
  const auto kind = find_pretokenizer_by_pattern(regex);
  if (!kind) return unsupported(fmt::format("the split pattern '{}'", regex.substr(0, 200)));
  const std::string_view behavior = string_member(step, "behavior");
  if (behavior != "Isolated" || true_member(step, "invert")) {
    return unsupported(fmt::format("a Split with the behavior '{}'", behavior));
  }
  return *kind;
}

// ByteLevel | Digits ByteLevel | Split ByteLevel(use_regex: false)
Result<PretokenizerKind> read_pretokenizer(const json::object& root) {
  const json::value* value = member(root, "pre_tokenizer");
  if (value == nullptr) return unsupported("a tokenizer without a pre_tokenizer");
  ASSIGN_OR_RETURN(const std::vector<const json::object*> steps, steps_of(*value, "pretokenizers"));
  std::string types;
  for (const json::object* step : steps) {
    types += (types.empty() ? "" : " + ") + std::string(string_member(*step, "type"));
  }
  if (types != "ByteLevel" && types != "Digits + ByteLevel" && types != "Split + ByteLevel") {
    return unsupported(fmt::format("the pre_tokenizer '{}'", types));
  }
  const json::object& byte_level = *steps.back();
  if (true_member(byte_level, "add_prefix_space", true)) return unsupported("add_prefix_space");
  const bool use_regex = true_member(byte_level, "use_regex", true);
  const bool is_split = types == "Split + ByteLevel";
  if (use_regex == is_split)
    return unsupported(fmt::format("{} with use_regex {}", types, use_regex));
  if (is_split) return split_kind(*steps.front());
  if (types == "ByteLevel") return PretokenizerKind::kGpt2;
  if (!true_member(*steps.front(), "individual_digits")) return unsupported("Digits in groups");
  return PretokenizerKind::kSmolLm;
}

// The template of a plain text is "BOS text" or "text".
Result<> read_template(const json::object& processor, TokenizerParts& parts) {
  const json::array* single = array_member(processor, "single");
  if (single == nullptr) return corrupt("post_processor.single is not an array");
  bool text_seen = false;
  for (const json::value& piece : *single) {
    const json::object* fields = piece.if_object();
    if (fields == nullptr)
      return corrupt("post_processor.single holds something that is no object");
    if (object_member(*fields, "Sequence") != nullptr) {
      text_seen = true;
      continue;
    }
    const json::object* special = object_member(*fields, "SpecialToken");
    const std::string_view name = special == nullptr ? "" : string_member(*special, "id");
    if (text_seen || parts.adds_bos) {
      return unsupported(fmt::format("a post_processor that adds '{}'", name.substr(0, 40)));
    }
    for (size_t id = 0; id < parts.tokens.size(); ++id) {
      if (parts.tokens[id].is_added && parts.tokens[id].bytes == name) {
        parts.bos = static_cast<TokenId>(id);
      }
    }
    if (!parts.bos) {
      return Error(ErrorCode::kCorrupt,
                   "tokenizer.json: post_processor adds '{}', which is no added token",
                   name.substr(0, 40));
    }
    parts.adds_bos = true;
  }
  return Ok{};
}

Result<> read_post_processor(const json::object& root, TokenizerParts& parts) {
  const json::value* value = member(root, "post_processor");
  if (value == nullptr) return Ok{};
  ASSIGN_OR_RETURN(const std::vector<const json::object*> steps, steps_of(*value, "processors"));
  for (const json::object* step : steps) {
    const std::string_view type = string_member(*step, "type");
    if (type == "ByteLevel") continue;  // changes offsets only
    if (type != "TemplateProcessing")
      return unsupported(fmt::format("the post_processor '{}'", type));
    RETURN_IF_ERROR(read_template(*step, parts));
  }
  return Ok{};
}

Result<> check_normalizer(const json::object& root) {
  const json::value* value = member(root, "normalizer");
  if (value == nullptr) return Ok{};
  ASSIGN_OR_RETURN(const std::vector<const json::object*> steps, steps_of(*value, "normalizers"));
  if (steps.empty()) return Ok{};
  return unsupported(fmt::format("the normalizer '{}'", string_member(*steps.front(), "type")));
}

Result<TokenizerParts> read_root(const json::object& root) {
  const json::object* model = object_member(root, "model");
  if (model == nullptr) return corrupt("no object 'model'");
  RETURN_IF_ERROR(check_model(*model));
  RETURN_IF_ERROR(check_normalizer(root));
  TokenizerParts parts;
  ASSIGN_OR_RETURN(parts.pretokenizer, read_pretokenizer(root));
  TokenList tokens;
  RETURN_IF_ERROR(read_vocabulary(*model, tokens));
  RETURN_IF_ERROR(read_added_tokens(root, *model, tokens));
  ASSIGN_OR_RETURN(parts.tokens, std::move(tokens).finish());
  RETURN_IF_ERROR(check_unknown_token(*model, parts.tokens));
  RETURN_IF_ERROR(read_merges(*model, parts));
  RETURN_IF_ERROR(read_post_processor(root, parts));
  parts.words_first = true_member(*model, "ignore_merges");
  parts.missing_bytes = WordMerger::MissingBytes::kSkip;
  return parts;
}

}  // namespace

Result<TokenizerParts> read_tokenizer_json(std::string_view text) {
  // One arena for the whole document: 280,000 merges are as many little strings.
  json::monotonic_resource arena(text.size() + 4096);
  json::parse_options options;
  options.max_depth = 16;
  boost::system::error_code error;
  const json::value document = json::parse(text, error, &arena, options);
  if (error) return corrupt(fmt::format("no valid JSON: {}", error.message()));
  if (!document.is_object()) return corrupt("not a JSON object");
  return read_root(document.get_object());
}

}  // namespace puna::model
