// SPDX-License-Identifier: Apache-2.0
#include "kv/prefix_cache.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/check.h"

namespace puna::kv {
namespace {

// The finaliser of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number
// generators").
uint64_t mix(uint64_t value) {
  value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9ULL;
  value = (value ^ (value >> 27)) * 0x94D049BB133111EBULL;
  return value ^ (value >> 31);
}

}  // namespace

PrefixCache::PrefixCache(BlockPool& pool, uint64_t model_digest)
    : pool_(pool),
      model_digest_(model_digest),
      entries_(static_cast<size_t>(pool.total())),
      tokens_(entries_.size() * kBlockTokens),
      shares_(static_cast<size_t>(pool.num_owners()), 1.0),
      buckets_(std::bit_ceil(entries_.size() * 2), kNoBlock) {}

void PrefixCache::set_shares(std::span<const double> shares) {
  CHECK_EQ(shares.size(), shares_.size());
  std::copy(shares.begin(), shares.end(), shares_.begin());
}

uint64_t PrefixCache::seed(uint64_t salt) const {
  return mix(mix(model_digest_ + 0x9E3779B97F4A7C15ULL) ^ salt);
}

uint64_t PrefixCache::chain(uint64_t parent_key, const int32_t* tokens) {
  uint64_t key = parent_key;
  for (int32_t i = 0; i < kBlockTokens; i += 2) {
    const uint64_t pair = (static_cast<uint64_t>(static_cast<uint32_t>(tokens[i])) << 32) |
                          static_cast<uint32_t>(tokens[i + 1]);
    key = mix(key ^ pair) + 0x9E3779B97F4A7C15ULL;
  }
  return key;
}

BlockId PrefixCache::lookup(uint64_t key, uint64_t salt, BlockId parent,
                            const int32_t* tokens) const {
  for (BlockId block = buckets_[bucket(key)]; block != kNoBlock;
       block = entries_[static_cast<size_t>(block)].next_in_bucket) {
    const Entry& entry = entries_[static_cast<size_t>(block)];
    if (entry.key == key && entry.salt == salt && entry.parent == parent &&
        std::memcmp(tokens_of(block), tokens, kBlockTokens * sizeof(int32_t)) == 0) {
      return block;
    }
  }
  return kNoBlock;
}

int32_t PrefixCache::find(uint64_t salt, std::span<const int32_t> tokens,
                          std::span<BlockId> blocks) const {
  const size_t limit = std::min(tokens.size() / kBlockTokens, blocks.size());
  uint64_t key = seed(salt);
  BlockId parent = kNoBlock;
  for (size_t i = 0; i < limit; ++i) {
    key = chain(key, tokens.data() + i * kBlockTokens);
    parent = lookup(key, salt, parent, tokens.data() + i * kBlockTokens);
    if (parent == kNoBlock) return static_cast<int32_t>(i);
    blocks[i] = parent;
  }
  return static_cast<int32_t>(limit);
}

PrefixCache::Prefix PrefixCache::probe(uint64_t salt, std::span<const int32_t> tokens,
                                       int32_t max_blocks) const {
  Prefix prefix;
  uint64_t key = seed(salt);
  BlockId parent = kNoBlock;
  for (; prefix.blocks < max_blocks; ++prefix.blocks) {
    const int32_t* own = tokens.data() + static_cast<size_t>(prefix.blocks) * kBlockTokens;
    key = chain(key, own);
    parent = lookup(key, salt, parent, own);
    if (parent == kNoBlock) break;
    if (pool_.references(parent) == 0) ++prefix.unheld;
  }
  return prefix;
}

BlockId PrefixCache::insert(uint64_t salt, BlockId parent, std::span<const int32_t> tokens,
                            BlockId block, int32_t owner) {
  CHECK_EQ(tokens.size(), static_cast<size_t>(kBlockTokens));
  CHECK(parent == kNoBlock || entries_[static_cast<size_t>(parent)].findable);
  const uint64_t parent_key =
      parent == kNoBlock ? seed(salt) : entries_[static_cast<size_t>(parent)].key;
  const uint64_t key = chain(parent_key, tokens.data());
  const BlockId equal = lookup(key, salt, parent, tokens.data());
  if (equal != kNoBlock) {
    CHECK_NE(equal, block);
    pool_.retain(equal);
    pool_.release(block);
    return equal;
  }
  Entry& entry = entries_[static_cast<size_t>(block)];
  CHECK(!entry.findable);
  entry = {.key = key,
           .salt = salt,
           .parent = parent,
           .next_in_bucket = buckets_[bucket(key)],
           .children = 0,
           .findable = true};
  buckets_[bucket(key)] = block;
  std::memcpy(tokens_.data() + static_cast<size_t>(block) * kBlockTokens, tokens.data(),
              kBlockTokens * sizeof(int32_t));
  if (parent != kNoBlock) ++entries_[static_cast<size_t>(parent)].children;
  pool_.set_findable(block, true, parent == kNoBlock ? owner : pool_.owner(parent));
  return block;
}

void PrefixCache::forget(BlockId block) {
  Entry& entry = entries_[static_cast<size_t>(block)];
  CHECK(entry.findable && entry.children == 0);
  BlockId* link = &buckets_[bucket(entry.key)];
  while (*link != block) link = &entries_[static_cast<size_t>(*link)].next_in_bucket;
  *link = entry.next_in_bucket;
  if (entry.parent != kNoBlock) --entries_[static_cast<size_t>(entry.parent)].children;
  entry.findable = false;
  pool_.set_findable(block, false);
}

BlockId PrefixCache::victim() const {
  int32_t most = 0;
  double most_over = -1.0;
  for (int32_t owner = 0; owner < pool_.num_owners(); ++owner) {
    const double over = pool_.cached_of(owner) / shares_[static_cast<size_t>(owner)];
    if (over <= most_over) continue;
    most_over = over;
    most = owner;
  }
  return pool_.least_recently_used(most);
}

void PrefixCache::make_room() {
  if (pool_.free() > 0) return;
  const BlockId oldest = victim();
  CHECK_NE(oldest, kNoBlock);
  forget(oldest);
  ++evictions_;
}

BlockId PrefixCache::take() {
  make_room();
  return pool_.take_free();
}

void PrefixCache::check() const {
  std::vector<int32_t> children(entries_.size());
  size_t findable = 0;
  for (size_t i = 0; i < entries_.size(); ++i) {
    const Entry& entry = entries_[i];
    if (!entry.findable) continue;
    ++findable;
    CHECK_EQ(lookup(entry.key, entry.salt, entry.parent, tokens_of(static_cast<BlockId>(i))),
             static_cast<BlockId>(i));
    if (entry.parent == kNoBlock) continue;
    CHECK(entries_[static_cast<size_t>(entry.parent)].findable);
    CHECK_EQ(entries_[static_cast<size_t>(entry.parent)].salt, entry.salt);
    ++children[static_cast<size_t>(entry.parent)];
  }
  for (size_t i = 0; i < entries_.size(); ++i) {
    if (entries_[i].findable) CHECK_EQ(children[i], entries_[i].children);
  }
  CHECK_GE(findable, static_cast<size_t>(pool_.cached()));
}

}  // namespace puna::kv
