// SPDX-License-Identifier: Apache-2.0
// Who holds which KV block: a reference count per block, the free list, and per owner (tenant) the
// least-recently-used list of cached blocks that nobody holds. Owned by the engine's scheduler,
// engine thread only. Every call but check() is O(1), and nothing allocates after construction.
//
// A block is in exactly one place, so free + held + cached + withheld = total at all times:
//   free      no content worth keeping
//   held      at least one sequence's block table names it
//   cached    nobody holds it, but the prefix cache can still find its content
//   withheld  taken out of service (the pool was shrunk)
//
//   BlockPool pool(1024);
//   BlockId block = pool.take_free();   // CHECKs that one is free; PrefixCache::take() also evicts
//   pool.retain(block);                 // a second holder
//   pool.release(block);
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kv/block_id.h"

namespace puna::kv {

class BlockPool {
 public:
  explicit BlockPool(int32_t num_blocks, int32_t num_owners = 1);

  int32_t total() const { return static_cast<int32_t>(blocks_.size()); }
  int32_t free() const { return static_cast<int32_t>(free_.size()); }
  int32_t held() const { return held_; }
  int32_t cached() const { return cached_; }
  int32_t cached_of(int32_t owner) const { return lists_[list(owner)].length; }
  int32_t num_owners() const { return static_cast<int32_t>(lists_.size()); }
  int32_t withheld() const { return static_cast<int32_t>(withheld_.size()); }
  // Blocks that can be had now, if need be by evicting cached ones.
  int32_t available() const { return free() + cached(); }
  int32_t references(BlockId block) const { return blocks_[index(block)].references; }

  // Of a findable block.
  int32_t owner(BlockId block) const { return blocks_[index(block)].owner; }

  // A free block with one reference.
  BlockId take_free();
  // One more holder of a held or cached block.
  void retain(BlockId block);
  // One holder less; the last one's block becomes cached or free.
  void release(BlockId block);

  // The prefix cache says whether a block's content can be found. Only for a block that is held, or
  // (forgetting) cached: that one becomes free. A findable block is cached for `owner`.
  void set_findable(BlockId block, bool findable, int32_t owner = 0);
  // The owner's cached block that has gone unused for longest, or kNoBlock.
  BlockId least_recently_used(int32_t owner = 0) const { return lists_[list(owner)].ends.next; }

  // Takes a free block out of service; restore() puts one back.
  void withhold();
  void restore();

  // CHECKs conservation and every list. O(total).
  void check() const;

 private:
  enum class Place : uint8_t { kFree, kHeld, kCached, kWithheld };
  struct Links {  // of an LRU list; kNoBlock is the list's head itself
    BlockId previous = kNoBlock;
    BlockId next = kNoBlock;
  };
  struct List {
    Links ends;  // next: oldest, previous: newest
    int32_t length = 0;
  };
  struct Block {
    int32_t references = 0;
    Place place = Place::kFree;
    bool findable = false;
    int32_t owner = 0;
    Links lru;
  };

  size_t index(BlockId block) const;
  size_t list(int32_t owner) const;
  Links& links(int32_t owner, BlockId block) {
    return block == kNoBlock ? lists_[list(owner)].ends : blocks_[index(block)].lru;
  }
  int32_t check_list(int32_t owner) const;
  void push_most_recent(BlockId block);
  void unlink(BlockId block);

  std::vector<Block> blocks_;
  std::vector<BlockId> free_;
  std::vector<BlockId> withheld_;
  std::vector<List> lists_;  // [owners]
  int32_t held_ = 0;
  int32_t cached_ = 0;
};

}  // namespace puna::kv
