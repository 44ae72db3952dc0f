// SPDX-License-Identifier: Apache-2.0
// The tables behind a Tokenizer. Internal to the tokenizer.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "model/bpe.h"
#include "model/pretokenizer.h"
#include "model/tokenizer.h"
#include "model/tokenizer_parts.h"

namespace puna::model {

// Finds the added tokens' names in a text: the leftmost first, the longest of those.
class NameFinder {
 public:
  struct Match {
    size_t begin = 0;
    size_t end = 0;
    TokenId id = kNoToken;
  };

  NameFinder() = default;
  explicit NameFinder(std::vector<std::pair<std::string_view, TokenId>> names);

  std::optional<Match> find(std::string_view text, size_t from) const;
  TokenId find_exact(std::string_view name) const;

 private:
  std::optional<Match> longest_at(std::string_view text, size_t begin) const;

  std::vector<std::pair<std::string_view, TokenId>> names_;  // sorted
  std::array<bool, 256> begins_name_{};
};

struct Tokenizer::State {
  static Result<std::unique_ptr<const State>> build(TokenizerParts parts);

  std::string_view bytes(TokenId id) const {
    const auto index = static_cast<size_t>(id);
    return std::string_view(arena).substr(offsets[index], offsets[index + 1] - offsets[index]);
  }
  bool holds(TokenId id) const { return id >= 0 && static_cast<size_t>(id) + 1 < offsets.size(); }
  void encode_plain(std::string_view text, MergeScratch& scratch, std::vector<TokenId>& out) const;

  std::string arena;              // the bytes of all tokens, one after the other
  std::vector<uint32_t> offsets;  // [vocab_size + 1] into arena
  std::vector<bool> is_special;   // [vocab_size]
  WordMap whole_words;            // words whose bytes encode to just themselves
  WordMap other_words;            // words that BPE never reaches on its own
  WordMerger merger;
  NameFinder added_names;        // for trusted text
  NameFinder plain_added_names;  // without the special ones: for any text
  PretokenizerKind pretokenizer = PretokenizerKind::kLlama3;
  std::optional<TokenId> bos;
  std::optional<TokenId> eos;
  std::vector<TokenId> end_of_generation;  // ascending
  bool adds_bos = false;
  int32_t longest_token_bytes = 0;
  std::string chat_template;

 private:
  Result<> take_tokens(const std::vector<TokenPart>& tokens);
  Result<WordMap> index_words(const std::vector<TokenPart>& tokens);
  Result<> index_names(const std::vector<TokenPart>& tokens);
  Result<> build_merger(const TokenizerParts& parts, const WordMap& words);
  void divide_words(const TokenizerParts& parts);
  Result<> take_roles(TokenizerParts& parts);
};

}  // namespace puna::model
