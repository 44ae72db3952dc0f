// SPDX-License-Identifier: Apache-2.0
// What the three file formats are read into, and what a Tokenizer is built from. Internal to the
// tokenizer: tokenizer_gguf.cc, tokenizer_json.cc and tokenizer_tiktoken.cc fill it in,
// tokenizer_state.cc checks it and builds the tables.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "formats/gguf.h"
#include "model/bpe.h"
#include "model/pretokenizer.h"

namespace puna::model {

inline constexpr size_t kMaxVocabulary = size_t{1} << 21;
inline constexpr size_t kMaxTokenBytes = 4096;

struct TokenPart {
  std::string bytes;
  bool is_word = false;     // made by BPE
  bool is_added = false;    // found in the text by its name, before it is cut into words
  bool is_special = false;  // an added token that only trusted text can contain
};

struct MergePart {
  TokenId left = kNoToken;
  TokenId right = kNoToken;
  TokenId merged = kNoToken;
};

struct TokenizerParts {
  std::vector<TokenPart> tokens;  // by id, no gaps
  PretokenizerKind pretokenizer = PretokenizerKind::kLlama3;
  std::vector<MergePart> merges;  // the first merges first
  // tiktoken's rule instead of `merges`: any two tokens whose bytes together are a token merge, and
  // the lower id merges first.
  bool merges_by_id = false;
  bool words_first = false;  // a word that is a token is that token, whatever the merges say
  WordMerger::MissingBytes missing_bytes = WordMerger::MissingBytes::kSeparate;
  std::optional<TokenId> bos;
  std::optional<TokenId> eos;
  std::vector<TokenId> end_of_generation;  // beside eos and the well-known names
  bool adds_bos = false;
  std::string chat_template;
};

Result<TokenizerParts> read_gguf_tokenizer(const formats::GgufFile& file);
Result<TokenizerParts> read_tokenizer_json(std::string_view json);
Result<TokenizerParts> read_tiktoken(std::string_view text);
// A Hugging Face folder: tokenizer.json, else tokenizer.model, with what tokenizer_config.json,
// generation_config.json and chat_template.jinja add.
Result<TokenizerParts> read_tokenizer_folder(const std::string& folder);

// Byte-level vocabularies spell each byte as a printable character (a space is U+0120). The bytes
// that `name` spells, or nothing when it holds a character outside that alphabet.
std::optional<std::string> spelled_bytes(std::string_view name);
// The reverse.
std::string spelling_of(std::string_view bytes);

}  // namespace puna::model
