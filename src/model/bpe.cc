// SPDX-License-Identifier: Apache-2.0
#include "model/bpe.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/check.h"

namespace puna::model {
namespace {

// Up to here the quadratic scan beats the heap: it touches one cache line or two.
constexpr size_t kShortWordBytes = 48;
// Symbol indices are 32 bits wide; longer words are cut (2 GiB of text without a word border).
constexpr size_t kLongestWordBytes = size_t{1} << 31;
constexpr uint32_t kNoSymbol = std::numeric_limits<uint32_t>::max();

// A quarter empty at least: probe chains stay within two cache lines, and a vocabulary of 49,152
// takes 1 MB of slots where half empty ones took 2.
size_t slot_count(size_t count) {
  return std::bit_ceil(std::max<size_t>(count + count / 3 + 1, 16));
}

uint64_t mix(uint64_t value) {
  value *= 0x9E3779B97F4A7C15U;
  return value ^ (value >> 32);
}

uint64_t load_up_to_8(const char* data, size_t length) {
  uint64_t value = 0;
  std::memcpy(&value, data, length);
  return value;
}

uint64_t hash_bytes(std::string_view bytes) {
  uint64_t hash = bytes.size();
  size_t at = 0;
  for (; at + 8 <= bytes.size(); at += 8) hash = mix(hash ^ load_up_to_8(bytes.data() + at, 8));
  return mix(mix(hash ^ load_up_to_8(bytes.data() + at, bytes.size() - at)));
}

uint64_t hash_pair(TokenId left, TokenId right) {
  return mix((uint64_t{static_cast<uint32_t>(left)} << 32) | static_cast<uint32_t>(right));
}

// The candidate that merges first is the heap's top.
bool merges_later(const MergeScratch::Candidate& a, const MergeScratch::Candidate& b) {
  return a.priority != b.priority ? a.priority > b.priority : a.left > b.left;
}

}  // namespace

WordMap::WordMap(size_t count) : mask_(slot_count(count) - 1), slots_(mask_ + 1) {}

bool WordMap::insert(std::string_view word, TokenId id) {
  for (size_t at = hash_bytes(word) & mask_;; at = (at + 1) & mask_) {
    Slot& slot = slots_[at];
    if (slot.id == kNoToken) {
      slot = {word.data(), static_cast<uint32_t>(word.size()), id};
      return true;
    }
    if (std::string_view(slot.data, slot.length) == word) return false;
  }
}

TokenId WordMap::find(std::string_view word) const {
  for (size_t at = hash_bytes(word) & mask_;; at = (at + 1) & mask_) {
    const Slot& slot = slots_[at];
    if (slot.id == kNoToken) return kNoToken;
    if (slot.length == word.size() && std::memcmp(slot.data, word.data(), word.size()) == 0) {
      return slot.id;
    }
  }
}

MergeMap::MergeMap(size_t count) : mask_(slot_count(count) - 1), slots_(mask_ + 1) {}

bool MergeMap::insert(TokenId left, TokenId right, Merge merge) {
  for (size_t at = hash_pair(left, right) & mask_;; at = (at + 1) & mask_) {
    Slot& slot = slots_[at];
    if (slot.left == kNoToken) {
      slot = {left, right, merge};
      return true;
    }
    if (slot.left == left && slot.right == right) return false;
  }
}

Merge MergeMap::find(TokenId left, TokenId right) const {
  for (size_t at = hash_pair(left, right) & mask_;; at = (at + 1) & mask_) {
    const Slot& slot = slots_[at];
    if (slot.left == left && slot.right == right) return slot.merge;
    if (slot.left == kNoToken) return {};
  }
}

void WordMerger::merge(std::string_view word, MergeScratch& scratch,
                       std::vector<TokenId>& out) const {
  for (; word.size() > kLongestWordBytes; word.remove_prefix(kLongestWordBytes)) {
    merge_long(word.substr(0, kLongestWordBytes), scratch, out);
  }
  if (word.size() > kShortWordBytes) return merge_long(word, scratch, out);
  std::array<TokenId, kShortWordBytes> symbols;
  size_t count = 0;
  for (const char byte : word) {
    const TokenId id = byte_tokens_[static_cast<uint8_t>(byte)];
    if (id == kNoToken && missing_ == MissingBytes::kSkip) continue;
    symbols[count++] = id;
  }
  merge_short(std::span(symbols).first(count), out);
}

void WordMerger::merge_short(std::span<TokenId> symbols, std::vector<TokenId>& out) const {
  const auto find = [&](TokenId left, TokenId right) {
    return left == kNoToken || right == kNoToken ? Merge{} : merges_.find(left, right);
  };
  std::array<Merge, kShortWordBytes> merges;  // of symbol i with symbol i + 1
  size_t count = symbols.size();
  for (size_t i = 0; i + 1 < count; ++i) merges[i] = find(symbols[i], symbols[i + 1]);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i) {
      if (merges[i].priority < merges[best].priority) best = i;
    }
    if (merges[best].priority == kNoMerge) break;
    symbols[best] = merges[best].merged;
    --count;
    for (size_t i = best + 1; i < count; ++i) symbols[i] = symbols[i + 1];
    for (size_t i = best + 1; i + 1 < count; ++i) merges[i] = merges[i + 1];
    if (best + 1 < count) merges[best] = find(symbols[best], symbols[best + 1]);
    if (best > 0) merges[best - 1] = find(symbols[best - 1], symbols[best]);
  }
  for (const TokenId id : symbols.first(count)) {
    if (id != kNoToken) out.push_back(id);
  }
}

void WordMerger::merge_long(std::string_view word, MergeScratch& scratch,
                            std::vector<TokenId>& out) const {
  std::vector<MergeScratch::Symbol>& symbols = scratch.symbols;
  std::vector<MergeScratch::Candidate>& heap = scratch.heap;
  symbols.clear();
  heap.clear();
  for (const char byte : word) {
    const TokenId id = byte_tokens_[static_cast<uint8_t>(byte)];
    if (id == kNoToken && missing_ == MissingBytes::kSkip) continue;
    const auto index = static_cast<uint32_t>(symbols.size());
    symbols.push_back({id, index - 1, index + 1});  // the first symbol's previous is kNoSymbol
  }
  if (symbols.empty()) return;
  symbols.back().next = kNoSymbol;

  const auto add_candidate = [&](uint32_t left) {
    const uint32_t right = left == kNoSymbol ? kNoSymbol : symbols[left].next;
    if (right == kNoSymbol) return false;
    const TokenId left_id = symbols[left].id;
    const TokenId right_id = symbols[right].id;
    if (left_id == kNoToken || right_id == kNoToken) return false;
    const Merge merge = merges_.find(left_id, right_id);
    if (merge.priority == kNoMerge) return false;
    heap.push_back({merge.priority, left, left_id, right_id});
    return true;
  };
  for (uint32_t i = 0; i < symbols.size(); ++i) add_candidate(i);
  std::make_heap(heap.begin(), heap.end(), merges_later);

  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), merges_later);
    const MergeScratch::Candidate top = heap.back();
    heap.pop_back();
    MergeScratch::Symbol& left = symbols[top.left];
    // A symbol that was merged into its left neighbour keeps no id.
    if (left.id != top.left_id || left.next == kNoSymbol) continue;
    MergeScratch::Symbol& right = symbols[left.next];
    if (right.id != top.right_id) continue;
    left.id = merges_.find(top.left_id, top.right_id).merged;
    right.id = kNoToken;
    left.next = right.next;
    if (left.next != kNoSymbol) symbols[left.next].previous = top.left;
    for (const uint32_t changed : {left.previous, top.left}) {
      if (add_candidate(changed)) std::push_heap(heap.begin(), heap.end(), merges_later);
    }
  }
  for (uint32_t at = 0; at != kNoSymbol; at = symbols[at].next) {
    if (symbols[at].id != kNoToken) out.push_back(symbols[at].id);
  }
}

}  // namespace puna::model
