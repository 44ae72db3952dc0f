// SPDX-License-Identifier: Apache-2.0
// Byte-pair encoding of one word. Immutable after building; any thread may encode at the same time.
//   WordMap    byte strings -> token ids (flat hash table over the vocabulary's own bytes)
//   MergeMap   pairs of token ids -> (priority, merged id) (flat hash table)
//   WordMerger joins the bytes of a word, the lowest priority value first, the leftmost of equals
// Short words are merged by scanning, long ones with a heap over a linked list: O(n log n).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>
#include <vector>

namespace puna::model {

using TokenId = int32_t;
inline constexpr TokenId kNoToken = -1;

// `bytes_of(id)` must stay valid as long as the map: it keeps views.
class WordMap {
 public:
  // Room for `count` words; insert no more.
  explicit WordMap(size_t count = 0);

  // False when the word is there already.
  bool insert(std::string_view word, TokenId id);
  TokenId find(std::string_view word) const;

 private:
  struct Slot {
    const char* data = nullptr;
    uint32_t length = 0;
    TokenId id = kNoToken;
  };
  size_t mask_ = 0;
  std::vector<Slot> slots_;
};

struct Merge {
  uint32_t priority = std::numeric_limits<uint32_t>::max();  // max: the pair does not merge
  TokenId merged = kNoToken;
};
inline constexpr uint32_t kNoMerge = std::numeric_limits<uint32_t>::max();

class MergeMap {
 public:
  explicit MergeMap(size_t count = 0);

  // False when the pair is there already.
  bool insert(TokenId left, TokenId right, Merge merge);
  Merge find(TokenId left, TokenId right) const;

 private:
  struct Slot {
    TokenId left = kNoToken;
    TokenId right = kNoToken;
    Merge merge;
  };
  size_t mask_ = 0;
  std::vector<Slot> slots_;
};

// Work memory of one encode call, reused from word to word.
struct MergeScratch {
  struct Symbol {
    TokenId id;
    uint32_t previous;
    uint32_t next;
  };
  struct Candidate {
    uint32_t priority;
    uint32_t left;    // symbol index
    TokenId left_id;  // as they were when the candidate was made: tells stale ones
    TokenId right_id;
  };
  std::vector<Symbol> symbols;
  std::vector<Candidate> heap;
};

class WordMerger {
 public:
  // What happens to bytes that the vocabulary has no token for. They are left out of the result.
  enum class MissingBytes : uint8_t {
    kSeparate,  // their neighbours never merge with each other (GGUF, as llama.cpp)
    kSkip,      // as if they were not in the word (tokenizer.json, as Hugging Face tokenizers)
  };

  WordMerger() = default;
  WordMerger(const std::array<TokenId, 256>& byte_tokens, MergeMap merges, MissingBytes missing)
      : byte_tokens_(byte_tokens), merges_(std::move(merges)), missing_(missing) {}

  // Appends the tokens of `word` to `out`.
  void merge(std::string_view word, MergeScratch& scratch, std::vector<TokenId>& out) const;

 private:
  void merge_short(std::span<TokenId> symbols, std::vector<TokenId>& out) const;
  void merge_long(std::string_view word, MergeScratch& scratch, std::vector<TokenId>& out) const;

  std::array<TokenId, 256> byte_tokens_{};
  MergeMap merges_;
  MissingBytes missing_ = MissingBytes::kSeparate;
};

}  // namespace puna::model
