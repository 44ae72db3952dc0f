// SPDX-License-Identifier: Apache-2.0
#include "model/tokenizer_state.h"

#include <algorithm>
#include <array>

namespace puna::model {
namespace {

// Names of tokens that end an answer, whatever the model's metadata say about them.
constexpr std::array<std::string_view, 6> kEndNames = {
    "<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end_of_text|>", "<|endoftext|>", "</s>"};

// As much of a token as an error message should show.
std::string shown(std::string_view bytes) {
  return std::string(bytes.substr(0, 40)) + (bytes.size() > 40 ? "..." : "");
}

// tiktoken's rule written out: every way to cut a word into two words.
std::vector<MergePart> merges_of_words(const std::vector<TokenPart>& tokens, const WordMap& words) {
  std::vector<MergePart> merges;
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (!tokens[id].is_word) continue;
    const std::string_view bytes = tokens[id].bytes;
    for (size_t cut = 1; cut < bytes.size(); ++cut) {
      const TokenId left = words.find(bytes.substr(0, cut));
      if (left == kNoToken) continue;
      const TokenId right = words.find(bytes.substr(cut));
      if (right != kNoToken) merges.push_back({left, right, static_cast<TokenId>(id)});
    }
  }
  return merges;
}

}  // namespace

Result<std::unique_ptr<const Tokenizer::State>> Tokenizer::State::build(TokenizerParts parts) {
  auto state = std::make_unique<State>();
  RETURN_IF_ERROR(state->take_tokens(parts.tokens));
  ASSIGN_OR_RETURN(const WordMap words, state->index_words(parts.tokens));
  RETURN_IF_ERROR(state->index_names(parts.tokens));
  if (parts.merges_by_id) parts.merges = merges_of_words(parts.tokens, words);
  RETURN_IF_ERROR(state->build_merger(parts, words));
  state->divide_words(parts);
  RETURN_IF_ERROR(state->take_roles(parts));
  state->pretokenizer = parts.pretokenizer;
  state->chat_template = std::move(parts.chat_template);
  return std::unique_ptr<const State>(std::move(state));
}

Result<> Tokenizer::State::take_tokens(const std::vector<TokenPart>& tokens) {
  if (tokens.empty()) return Error(ErrorCode::kCorrupt, "the vocabulary is empty");
  if (tokens.size() > kMaxVocabulary) {
    return Error(ErrorCode::kUnsupported, "the vocabulary has {} tokens, more than the limit of {}",
                 tokens.size(), kMaxVocabulary);
  }
  size_t total = 0;
  for (size_t id = 0; id < tokens.size(); ++id) {
    const size_t length = tokens[id].bytes.size();
    if (length > kMaxTokenBytes) {
      return Error(ErrorCode::kUnsupported, "token {} is {} bytes long, more than the limit of {}",
                   id, length, kMaxTokenBytes);
    }
    total += length;
    longest_token_bytes = std::max(longest_token_bytes, static_cast<int32_t>(length));
  }
  if (total > std::numeric_limits<uint32_t>::max()) {
    return Error(ErrorCode::kUnsupported, "the vocabulary's tokens are {} bytes long together",
                 total);
  }
  arena.reserve(total);
  offsets.reserve(tokens.size() + 1);
  is_special.reserve(tokens.size());
  offsets.push_back(0);
  for (const TokenPart& token : tokens) {
    arena += token.bytes;
    offsets.push_back(static_cast<uint32_t>(arena.size()));
    is_special.push_back(token.is_special);
  }
  return Ok{};
}

// The map keeps views into the arena, which no longer moves.
Result<WordMap> Tokenizer::State::index_words(const std::vector<TokenPart>& tokens) {
  WordMap words(tokens.size());
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (!tokens[id].is_word) continue;
    const std::string_view word = bytes(static_cast<TokenId>(id));
    if (word.empty()) return Error(ErrorCode::kCorrupt, "token {} is empty", id);
    if (!words.insert(word, static_cast<TokenId>(id))) {
      return Error(ErrorCode::kCorrupt, "tokens {} and {} are the same: '{}'", words.find(word), id,
                   shown(word));
    }
  }
  return words;
}

Result<> Tokenizer::State::index_names(const std::vector<TokenPart>& tokens) {
  std::vector<std::pair<std::string_view, TokenId>> names;
  std::vector<std::pair<std::string_view, TokenId>> plain_names;
  for (size_t index = 0; index < tokens.size(); ++index) {
    if (!tokens[index].is_added) continue;
    const auto id = static_cast<TokenId>(index);
    if (bytes(id).empty()) return Error(ErrorCode::kCorrupt, "added token {} has no name", id);
    names.emplace_back(bytes(id), id);
    if (!tokens[index].is_special) plain_names.emplace_back(bytes(id), id);
  }
  std::sort(names.begin(), names.end());
  for (size_t i = 1; i < names.size(); ++i) {
    if (names[i].first == names[i - 1].first) {
      return Error(ErrorCode::kCorrupt, "added tokens {} and {} have the same name: '{}'",
                   names[i - 1].second, names[i].second, shown(names[i].first));
    }
  }
  added_names = NameFinder(std::move(names));
  plain_added_names = NameFinder(std::move(plain_names));
  return Ok{};
}

Result<> Tokenizer::State::build_merger(const TokenizerParts& parts, const WordMap& words) {
  std::array<TokenId, 256> byte_tokens{};
  for (size_t byte = 0; byte < byte_tokens.size(); ++byte) {
    const char text = static_cast<char>(byte);
    byte_tokens[byte] = words.find({&text, 1});
  }
  if (parts.merges.size() > kNoMerge) return Error(ErrorCode::kUnsupported, "too many merges");
  MergeMap merges(parts.merges.size());
  for (size_t i = 0; i < parts.merges.size(); ++i) {
    const MergePart& part = parts.merges[i];
    const auto priority =
        static_cast<uint32_t>(parts.merges_by_id ? static_cast<size_t>(part.merged) : i);
    if (!merges.insert(part.left, part.right, {priority, part.merged})) {
      return Error(ErrorCode::kCorrupt, "merge {} ('{}' + '{}') is there twice", i,
                   shown(bytes(part.left)), shown(bytes(part.right)));
    }
  }
  merger = WordMerger(byte_tokens, std::move(merges), parts.missing_bytes);
  return Ok{};
}

// Most words of a text are tokens. Looking those up whole is the fast path, but only right for
// words that BPE itself would arrive at.
void Tokenizer::State::divide_words(const TokenizerParts& parts) {
  std::vector<bool> is_whole(parts.tokens.size(), parts.words_first);
  size_t whole_count = 0;
  size_t other_count = 0;
  MergeScratch scratch;
  std::vector<TokenId> result;
  for (size_t id = 0; id < parts.tokens.size(); ++id) {
    if (!parts.tokens[id].is_word) continue;
    if (!parts.words_first) {
      result.clear();
      merger.merge(bytes(static_cast<TokenId>(id)), scratch, result);
      is_whole[id] = result.size() == 1 && result[0] == static_cast<TokenId>(id);
    }
    ++(is_whole[id] ? whole_count : other_count);
  }
  whole_words = WordMap(whole_count);
  other_words = WordMap(other_count);
  for (size_t id = 0; id < parts.tokens.size(); ++id) {
    if (!parts.tokens[id].is_word) continue;
    (is_whole[id] ? whole_words : other_words)
        .insert(bytes(static_cast<TokenId>(id)), static_cast<TokenId>(id));
  }
}

Result<> Tokenizer::State::take_roles(TokenizerParts& parts) {
  std::vector<TokenId> ends = std::move(parts.end_of_generation);
  if (parts.eos) ends.push_back(*parts.eos);
  for (const std::string_view name : kEndNames) {
    const TokenId id = added_names.find_exact(name);
    if (id != kNoToken && is_special[static_cast<size_t>(id)]) ends.push_back(id);
  }
  std::sort(ends.begin(), ends.end());
  ends.erase(std::unique(ends.begin(), ends.end()), ends.end());
  for (const TokenId id : ends) {
    if (!holds(id)) {
      return Error(ErrorCode::kCorrupt,
                   "the end-of-answer token {} is outside the vocabulary of {}", id,
                   offsets.size() - 1);
    }
  }
  if (parts.bos && !holds(*parts.bos)) {
    return Error(ErrorCode::kCorrupt,
                 "the beginning-of-text token {} is outside the vocabulary of {}", *parts.bos,
                 offsets.size() - 1);
  }
  if (parts.adds_bos && !parts.bos) {
    return Error(ErrorCode::kCorrupt,
                 "the tokenizer adds a beginning-of-text token but names none");
  }
  bos = parts.bos;
  eos = parts.eos;
  adds_bos = parts.adds_bos;
  end_of_generation = std::move(ends);
  return Ok{};
}

void Tokenizer::State::encode_plain(std::string_view text, MergeScratch& scratch,
                                    std::vector<TokenId>& out) const {
  for (size_t at = 0; at < text.size();) {
    const size_t end = word_end(pretokenizer, text, at);
    const std::string_view word = text.substr(at, end - at);
    const TokenId id = whole_words.find(word);
    if (id != kNoToken) {
      out.push_back(id);
    } else {
      merger.merge(word, scratch, out);
    }
    at = end;
  }
}

NameFinder::NameFinder(std::vector<std::pair<std::string_view, TokenId>> names)
    : names_(std::move(names)) {
  std::sort(names_.begin(), names_.end());
  for (const auto& [name, id] : names_) begins_name_[static_cast<uint8_t>(name[0])] = true;
}

std::optional<NameFinder::Match> NameFinder::find(std::string_view text, size_t from) const {
  if (names_.empty()) return std::nullopt;
  for (size_t at = from; at < text.size(); ++at) {
    if (!begins_name_[static_cast<uint8_t>(text[at])]) continue;
    if (auto match = longest_at(text, at)) return match;
  }
  return std::nullopt;
}

// Narrows the range of names that agree with the text, byte by byte.
std::optional<NameFinder::Match> NameFinder::longest_at(std::string_view text, size_t begin) const {
  std::optional<Match> longest;
  auto low = names_.begin();
  auto high = names_.end();
  for (size_t depth = 0; begin + depth < text.size(); ++depth) {
    const auto wanted = static_cast<uint8_t>(text[begin + depth]);
    // Of the names in [low, high), all agree so far; one that ends here sorts first and has no
    // byte.
    const auto byte_of = [depth](const std::pair<std::string_view, TokenId>& name) {
      return depth < name.first.size() ? static_cast<uint8_t>(name.first[depth]) : -1;
    };
    low = std::partition_point(low, high, [&](const auto& name) { return byte_of(name) < wanted; });
    high =
        std::partition_point(low, high, [&](const auto& name) { return byte_of(name) <= wanted; });
    if (low == high) break;
    if (low->first.size() == depth + 1) longest = Match{begin, begin + depth + 1, low->second};
  }
  return longest;
}

TokenId NameFinder::find_exact(std::string_view name) const {
  const auto at =
      std::lower_bound(names_.begin(), names_.end(), name,
                       [](const auto& entry, std::string_view key) { return entry.first < key; });
  return at != names_.end() && at->first == name ? at->second : kNoToken;
}

}  // namespace puna::model
