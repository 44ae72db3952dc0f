// SPDX-License-Identifier: Apache-2.0
#include "kv/prefix_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace puna::kv {
namespace {

using Tokens = std::vector<int32_t>;

Tokens numbered(int32_t count, int32_t first = 0) {
  Tokens tokens(static_cast<size_t>(count));
  for (int32_t i = 0; i < count; ++i) tokens[static_cast<size_t>(i)] = first + i;
  return tokens;
}

struct PrefixCacheTest : ::testing::Test {
  BlockPool pool{8};
  PrefixCache cache{pool, /*model_digest=*/42};

  // Holds the blocks of `tokens` as a sequence would: found ones shared, the rest taken and
  // inserted.
  std::vector<BlockId> hold(const Tokens& tokens, uint64_t salt = 0) {
    std::vector<BlockId> table(tokens.size() / kBlockTokens, kNoBlock);
    const auto hits = static_cast<size_t>(cache.find(salt, tokens, table));
    for (size_t i = 0; i < hits; ++i) pool.retain(table[i]);
    for (size_t i = hits; i < table.size(); ++i) table[i] = cache.take();
    insert(tokens, table, hits, salt);
    return table;
  }
  void insert(const Tokens& tokens, std::vector<BlockId>& table, size_t from, uint64_t salt = 0) {
    for (size_t i = from; i < table.size(); ++i) {
      table[i] = cache.insert(salt, i == 0 ? kNoBlock : table[i - 1],
                              std::span(tokens).subspan(i * kBlockTokens, kBlockTokens), table[i]);
    }
  }
  void release(const std::vector<BlockId>& table) {
    for (auto block = table.rbegin(); block != table.rend(); ++block) pool.release(*block);
  }
  int32_t hits(const Tokens& tokens, uint64_t salt = 0) {
    std::vector<BlockId> table(tokens.size() / kBlockTokens);
    const int32_t found = cache.find(salt, tokens, table);
    EXPECT_EQ(cache.probe(salt, tokens, static_cast<int32_t>(table.size())).blocks, found);
    return found;
  }
  void TearDown() override {
    pool.check();
    cache.check();
  }
};

TEST_F(PrefixCacheTest, FindsTheLongestChainOfFullBlocks) {
  const std::vector<BlockId> table = hold(numbered(48));
  EXPECT_EQ(hits(numbered(48)), 3);
  EXPECT_EQ(hits(numbered(47)), 2);
  EXPECT_EQ(hits(numbered(15)), 0);
  Tokens other = numbered(48);
  other[20] = 999;  // the second block differs, so the equal third one does not count either
  EXPECT_EQ(hits(other), 1);
  EXPECT_EQ(hits(numbered(16, 16)), 0) << "the same tokens at another place are another block";
  release(table);
  EXPECT_EQ(pool.cached(), 3);
  EXPECT_EQ(hits(numbered(48)), 3);
  EXPECT_EQ(cache.probe(0, numbered(48), 3).unheld, 3);
}

TEST_F(PrefixCacheTest, SaltsAndModelsNeverShare) {
  const std::vector<BlockId> table = hold(numbered(32), /*salt=*/1);
  EXPECT_EQ(hits(numbered(32), 1), 2);
  EXPECT_EQ(hits(numbered(32), 2), 0);
  const std::vector<BlockId> other = hold(numbered(32), /*salt=*/2);
  EXPECT_NE(table[0], other[0]);
  EXPECT_EQ(pool.held(), 4);
}

TEST_F(PrefixCacheTest, EqualBlocksBecomeOneWhenTheyFillUp) {
  const Tokens tokens = numbered(32);
  std::vector<BlockId> first = {cache.take(), cache.take()};
  std::vector<BlockId> second = {cache.take(), cache.take()};  // computed at the same time
  insert(tokens, first, 0);
  EXPECT_EQ(pool.held(), 4);
  insert(tokens, second, 0);
  EXPECT_EQ(first, second);
  EXPECT_EQ(pool.held(), 2);
  EXPECT_EQ(pool.references(first[0]), 2);
}

TEST_F(PrefixCacheTest, EvictsLeafFirstAndOldestFirst) {
  release(hold(numbered(48)));
  release(hold(numbered(48, 1000)));
  EXPECT_EQ(pool.free(), 2);
  cache.take();
  cache.take();
  cache.take();  // evicts the oldest chain's last block
  EXPECT_EQ(hits(numbered(48)), 2);
  EXPECT_EQ(hits(numbered(48, 1000)), 3);
  cache.take();
  cache.take();
  EXPECT_EQ(hits(numbered(48)), 0);
  EXPECT_EQ(hits(numbered(48, 1000)), 3);
  EXPECT_EQ(cache.evictions(), 3U);
}

// Owner 1 keeps three blocks; owner 0 floods the pool with new prompts, then shares turn around.
TEST(PrefixCacheShareTest, AFloodEvictsItsOwnBlocksFirst) {
  BlockPool pool(12, 2);
  PrefixCache cache(pool, 1);
  cache.set_shares(std::vector<double>{1.0, 1.0});
  const auto use = [&](uint64_t salt, int32_t first, int32_t blocks, int32_t owner) {
    const Tokens tokens = numbered(blocks * kBlockTokens, first);
    std::vector<BlockId> table;
    for (int32_t i = 0; i < blocks; ++i) {
      const BlockId block = cache.take();
      const std::span<const int32_t> own =
          std::span(tokens).subspan(static_cast<size_t>(i * kBlockTokens), kBlockTokens);
      table.push_back(cache.insert(salt, i == 0 ? kNoBlock : table.back(), own, block, owner));
    }
    while (!table.empty()) {
      pool.release(table.back());
      table.pop_back();
    }
  };
  use(7, 0, 3, 1);
  for (int32_t i = 0; i < 100; ++i) use(8, 1000 + i * 100, 2, 0);
  EXPECT_EQ(cache.probe(7, numbered(48), 3).blocks, 3);
  EXPECT_EQ(pool.cached_of(1), 3);
  EXPECT_GE(pool.cached_of(0), 8);
  pool.check();
  cache.check();
  cache.set_shares(std::vector<double>{100.0, 1.0});  // owner 1 is far over its share now
  use(8, 90000, 2, 0);
  EXPECT_LT(pool.cached_of(1), 3);
  cache.check();
}

TEST_F(PrefixCacheTest, HeldBlocksAreNeverEvicted) {
  const std::vector<BlockId> table = hold(numbered(64));
  for (int i = 0; i < 4; ++i) cache.take();
  EXPECT_DEATH(cache.take(), "CHECK failed");
  EXPECT_EQ(hits(numbered(64)), 4);
}

// Two prompts whose every block has the same tokens but one: hits must follow the tokens exactly.
TEST_F(PrefixCacheTest, AgreesWithPlainComparisonUnderRandomUse) {
  std::mt19937 random(11);
  std::vector<std::pair<Tokens, std::vector<BlockId>>> holders;
  for (int step = 0; step < 5000; ++step) {
    if (random() % 2 == 0 && !holders.empty()) {
      std::swap(holders[random() % holders.size()], holders.back());
      release(holders.back().second);
      holders.pop_back();
    } else {
      Tokens tokens;
      for (uint32_t block = 0; block < 1 + random() % 3; ++block) {
        const Tokens chosen = numbered(16, static_cast<int32_t>(random() % 3) * 100);
        tokens.insert(tokens.end(), chosen.begin(), chosen.end());
      }
      const int32_t needed = static_cast<int32_t>(tokens.size()) / kBlockTokens;
      if (pool.available() < needed) continue;
      const int32_t found = hits(tokens);
      for (const auto& [other, table] : holders) {  // what is held must be found
        const auto common = std::mismatch(tokens.begin(), tokens.end(), other.begin(), other.end());
        EXPECT_GE(found, (common.first - tokens.begin()) / kBlockTokens);
      }
      holders.emplace_back(tokens, hold(tokens));
    }
    pool.check();
    cache.check();
    // One block id stands for one (tokens so far): equal ids, equal prefixes.
    for (const auto& [tokens, table] : holders) {
      for (const auto& [other, other_table] : holders) {
        for (size_t i = 0; i < std::min(table.size(), other_table.size()); ++i) {
          const auto end = static_cast<std::ptrdiff_t>((i + 1) * kBlockTokens);
          ASSERT_EQ(table[i] == other_table[i],
                    std::equal(tokens.begin(), tokens.begin() + end, other.begin()));
        }
      }
    }
  }
}

}  // namespace
}  // namespace puna::kv
