// SPDX-License-Identifier: Apache-2.0
#include "kv/block_pool.h"

#include "base/check.h"

namespace puna::kv {

BlockPool::BlockPool(int32_t num_blocks, int32_t num_owners)
    : blocks_(static_cast<size_t>(num_blocks)), lists_(static_cast<size_t>(num_owners)) {
  CHECK_GE(num_blocks, 0);
  free_.reserve(blocks_.size());
  withheld_.reserve(blocks_.size());
  for (BlockId block = num_blocks - 1; block >= 0; --block) free_.push_back(block);
}

size_t BlockPool::index(BlockId block) const {
  CHECK(block >= 0 && block < total());
  return static_cast<size_t>(block);
}

size_t BlockPool::list(int32_t owner) const {
  CHECK(owner >= 0 && owner < num_owners());
  return static_cast<size_t>(owner);
}

BlockId BlockPool::take_free() {
  CHECK(!free_.empty());
  const BlockId block = free_.back();
  free_.pop_back();
  blocks_[index(block)].references = 1;
  blocks_[index(block)].place = Place::kHeld;
  ++held_;
  return block;
}

void BlockPool::retain(BlockId block) {
  Block& entry = blocks_[index(block)];
  if (entry.place == Place::kCached) {
    unlink(block);
    --cached_;
    ++held_;
    entry.place = Place::kHeld;
  }
  CHECK(entry.place == Place::kHeld);
  ++entry.references;
}

void BlockPool::release(BlockId block) {
  Block& entry = blocks_[index(block)];
  CHECK(entry.place == Place::kHeld && entry.references > 0);
  if (--entry.references > 0) return;
  --held_;
  if (entry.findable) {
    entry.place = Place::kCached;
    ++cached_;
    push_most_recent(block);
  } else {
    entry.place = Place::kFree;
    free_.push_back(block);
  }
}

void BlockPool::set_findable(BlockId block, bool findable, int32_t owner) {
  Block& entry = blocks_[index(block)];
  CHECK(entry.place == Place::kHeld || entry.place == Place::kCached);
  CHECK_NE(entry.findable, findable);
  entry.findable = findable;
  if (entry.place == Place::kHeld) {
    entry.owner = owner;
    return;
  }
  unlink(block);
  --cached_;
  entry.place = Place::kFree;
  free_.push_back(block);
}

void BlockPool::withhold() {
  CHECK(!free_.empty());
  blocks_[index(free_.back())].place = Place::kWithheld;
  withheld_.push_back(free_.back());
  free_.pop_back();
}

void BlockPool::restore() {
  CHECK(!withheld_.empty());
  blocks_[index(withheld_.back())].place = Place::kFree;
  free_.push_back(withheld_.back());
  withheld_.pop_back();
}

void BlockPool::push_most_recent(BlockId block) {
  const int32_t owner = blocks_[index(block)].owner;
  List& list_of_owner = lists_[list(owner)];
  const BlockId newest = list_of_owner.ends.previous;
  links(owner, block) = {.previous = newest, .next = kNoBlock};
  links(owner, newest).next = block;
  list_of_owner.ends.previous = block;
  ++list_of_owner.length;
}

void BlockPool::unlink(BlockId block) {
  const int32_t owner = blocks_[index(block)].owner;
  const Links gone = links(owner, block);
  links(owner, gone.previous).next = gone.next;
  links(owner, gone.next).previous = gone.previous;
  --lists_[list(owner)].length;
}

int32_t BlockPool::check_list(int32_t owner) const {
  const List& listed = lists_[list(owner)];
  int32_t length = 0;
  for (BlockId block = listed.ends.next; block != kNoBlock;
       block = blocks_[index(block)].lru.next) {
    const Block& entry = blocks_[index(block)];
    CHECK(entry.place == Place::kCached && entry.findable && entry.owner == owner);
    CHECK_LE(++length, listed.length);
  }
  CHECK_EQ(length, listed.length);
  return length;
}

void BlockPool::check() const {
  CHECK_EQ(free() + held_ + cached_ + withheld(), total());
  for (BlockId block : free_) CHECK(blocks_[index(block)].place == Place::kFree);
  for (BlockId block : withheld_) CHECK(blocks_[index(block)].place == Place::kWithheld);
  int32_t held_blocks = 0;
  int32_t free_blocks = 0;
  for (const Block& block : blocks_) {
    CHECK_EQ(block.references > 0, block.place == Place::kHeld);
    CHECK(!block.findable || block.place == Place::kHeld || block.place == Place::kCached);
    held_blocks += block.place == Place::kHeld ? 1 : 0;
    free_blocks += block.place == Place::kFree ? 1 : 0;
  }
  CHECK_EQ(held_blocks, held_);
  CHECK_EQ(free_blocks, free());
  int32_t listed = 0;
  for (int32_t owner = 0; owner < num_owners(); ++owner) listed += check_list(owner);
  CHECK_EQ(listed, cached_);
}

}  // namespace puna::kv
