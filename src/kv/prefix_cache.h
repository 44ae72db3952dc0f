// SPDX-License-Identifier: Apache-2.0
// Finds KV blocks that already hold the beginning of a prompt. Only full blocks are shared. A
// block's key is a hash chain over its tokens and everything before them, seeded with (model
// digest, cache salt); a hit counts only after the tokens, the parent block and the salt compared
// equal, so a hash collision can cost time but never serve another prompt's content. Owned by the
// engine's scheduler, engine thread only; no allocation after construction.
//
// Chains: whoever holds a block holds its ancestors too, and releases the last block of a chain
// first. So the least recently used block never has a findable child, and eviction goes leaf by
// leaf.
//
// Shares: every block has an owner (tenant). The owner whose cached blocks exceed its share by the
// largest factor loses one first, so nobody's flood evicts what another keeps within his share. A
// chain has one owner, whoever put its first block.
//
//   int32_t hits = cache.find(salt, prompt, table);      // table[0 … hits) now names the blocks
//   for (...) pool.retain(table[i]);
//   BlockId block = cache.take();                        // to be written: free, or the LRU one
//   evicted table[i] = cache.insert(salt, table[i - 1], tokens, table[i]);  // once it is full
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kv/block_id.h"
#include "kv/block_pool.h"

namespace puna::kv {

class PrefixCache {
 public:
  // `pool` outlives the cache.
  PrefixCache(BlockPool& pool, uint64_t model_digest);
  // The owners' shares, one positive number per owner of the pool; only their ratios matter.
  void set_shares(std::span<const double> shares);

  // The longest findable chain of full blocks that begins `tokens`, at most blocks.size() of them.
  // Takes no reference. Returns how many entries of `blocks` it filled.
  int32_t find(uint64_t salt, std::span<const int32_t> tokens, std::span<BlockId> blocks) const;
  // The same count without the ids, and how many of them nobody holds now.
  struct Prefix {
    int32_t blocks = 0;
    int32_t unheld = 0;
  };
  Prefix probe(uint64_t salt, std::span<const int32_t> tokens, int32_t max_blocks) const;

  // Makes a held, full block findable: `tokens` [kBlockTokens] are its own, `parent` (kNoBlock at
  // position 0) holds the positions before it and is findable. If an equal block is findable
  // already, the caller's reference moves to that one: `block` is released, the other retained.
  // Returns the block to use from now on.
  BlockId insert(uint64_t salt, BlockId parent, std::span<const int32_t> tokens, BlockId block,
                 int32_t owner = 0);

  // A block to write, with one reference. CHECKs that pool.available() > 0.
  BlockId take();
  // Makes at least one block free, evicting if need be.
  void make_room();

  uint64_t evictions() const { return evictions_; }

  // CHECKs that every findable block is reachable and its parent findable. O(total).
  void check() const;

 private:
  struct Entry {
    uint64_t key = 0;
    uint64_t salt = 0;
    BlockId parent = kNoBlock;
    BlockId next_in_bucket = kNoBlock;
    int32_t children = 0;  // findable blocks whose parent this is
    bool findable = false;
  };

  uint64_t seed(uint64_t salt) const;
  static uint64_t chain(uint64_t parent_key, const int32_t* tokens);
  // The findable block with these tokens behind `parent`, or kNoBlock.
  BlockId lookup(uint64_t key, uint64_t salt, BlockId parent, const int32_t* tokens) const;
  void forget(BlockId block);
  BlockId victim() const;
  const int32_t* tokens_of(BlockId block) const {
    return tokens_.data() + static_cast<size_t>(block) * kBlockTokens;
  }
  size_t bucket(uint64_t key) const { return static_cast<size_t>(key) & (buckets_.size() - 1); }

  BlockPool& pool_;
  const uint64_t model_digest_;
  std::vector<Entry> entries_;    // [blocks]
  std::vector<int32_t> tokens_;   // [blocks, kBlockTokens]
  std::vector<double> shares_;    // [owners]
  std::vector<BlockId> buckets_;  // first entry of each; a power of two, >= 2 × blocks
  uint64_t evictions_ = 0;
};

}  // namespace puna::kv
