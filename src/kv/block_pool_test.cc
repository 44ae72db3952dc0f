// SPDX-License-Identifier: Apache-2.0
#include "kv/block_pool.h"

#include <gtest/gtest.h>

#include <random>

namespace puna::kv {
namespace {

TEST(BlockIdTest, BlocksForTokensRoundsUp) {
  EXPECT_EQ(blocks_for_tokens(0), 0);
  EXPECT_EQ(blocks_for_tokens(1), 1);
  EXPECT_EQ(blocks_for_tokens(16), 1);
  EXPECT_EQ(blocks_for_tokens(17), 2);
}

TEST(BlockPoolTest, BlockReturnsToFreeWithItsLastHolder) {
  BlockPool pool(4);
  const BlockId block = pool.take_free();
  pool.retain(block);
  EXPECT_EQ(pool.references(block), 2);
  pool.release(block);
  EXPECT_EQ(pool.held(), 1);
  pool.release(block);
  EXPECT_EQ(pool.held(), 0);
  EXPECT_EQ(pool.free(), 4);
  pool.check();
}

TEST(BlockPoolTest, FindableBlocksAreCachedInOrderOfRelease) {
  BlockPool pool(3);
  const BlockId a = pool.take_free();
  const BlockId b = pool.take_free();
  const BlockId c = pool.take_free();
  for (BlockId block : {a, b, c}) pool.set_findable(block, true);
  for (BlockId block : {b, c, a}) pool.release(block);
  EXPECT_EQ(pool.cached(), 3);
  EXPECT_EQ(pool.available(), 3);
  EXPECT_EQ(pool.free(), 0);
  EXPECT_EQ(pool.least_recently_used(), b);
  pool.retain(b);  // used again: from now on the most recent
  pool.release(b);
  EXPECT_EQ(pool.least_recently_used(), c);
  pool.set_findable(c, false);
  EXPECT_EQ(pool.free(), 1);
  EXPECT_EQ(pool.least_recently_used(), a);
  pool.check();
}

TEST(BlockPoolTest, WithheldBlocksAreOutOfService) {
  BlockPool pool(3);
  pool.withhold();
  pool.withhold();
  EXPECT_EQ(pool.available(), 1);
  EXPECT_EQ(pool.withheld(), 2);
  pool.restore();
  EXPECT_EQ(pool.available(), 2);
  pool.check();
}

TEST(BlockPoolDeathTest, MisuseIsCaught) {
  BlockPool pool(1);
  const BlockId block = pool.take_free();
  EXPECT_DEATH(pool.take_free(), "CHECK failed");
  pool.release(block);
  EXPECT_DEATH(pool.release(block), "CHECK failed");
  EXPECT_DEATH(pool.retain(block), "CHECK failed");
  EXPECT_DEATH(pool.release(1), "CHECK failed");
}

// Random operations against a model of what each block's count must be.
TEST(BlockPoolTest, ConservesBlocksUnderRandomUse) {
  std::mt19937 random(7);
  BlockPool pool(32);
  std::vector<BlockId> held;  // one entry per reference
  for (int step = 0; step < 20000; ++step) {
    const auto action = random() % 6;
    if (action == 0 && pool.free() > 0) {
      held.push_back(pool.take_free());
      if (random() % 2 == 0) pool.set_findable(held.back(), true);
    } else if (action == 1 && !held.empty()) {
      held.push_back(held[random() % held.size()]);
      pool.retain(held.back());
    } else if (action == 2 && !held.empty()) {
      std::swap(held[random() % held.size()], held.back());
      pool.release(held.back());
      held.pop_back();
    } else if (action == 3 && pool.least_recently_used() != kNoBlock) {
      pool.set_findable(pool.least_recently_used(), false);
    } else if (action == 4 && pool.free() > 0) {
      pool.withhold();
    } else if (action == 5 && pool.withheld() > 0) {
      pool.restore();
    }
    pool.check();
    std::vector<int32_t> references(32);
    for (BlockId block : held) ++references[static_cast<size_t>(block)];
    for (BlockId block = 0; block < 32; ++block) {
      ASSERT_EQ(pool.references(block), references[static_cast<size_t>(block)]);
    }
  }
}

}  // namespace
}  // namespace puna::kv
