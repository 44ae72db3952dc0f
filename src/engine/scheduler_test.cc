// SPDX-License-Identifier: Apache-2.0
#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <numeric>

namespace puna::engine {
namespace {

std::unique_ptr<Sequence> make(int32_t prompt, int32_t max_tokens, uint64_t ticket,
                               uint64_t group = 0, TokenId first_token = 0) {
  auto sequence = std::make_unique<Sequence>();
  sequence->ticket = ticket;
  sequence->group = group == 0 ? ticket : group;
  sequence->prompt_tokens = prompt;
  sequence->stop.max_tokens = max_tokens;
  sequence->tokens.resize(static_cast<size_t>(prompt));
  std::iota(sequence->tokens.begin(), sequence->tokens.end(), first_token);
  sequence->reserved_blocks = kv::blocks_for_tokens(prompt + max_tokens);
  sequence->channel = std::make_shared<RequestChannel>(max_tokens + 1, -1, nullptr);
  return sequence;
}

struct SchedulerTest : ::testing::Test {
  explicit SchedulerTest(int32_t num_host_blocks = 0)
      : scheduler({.num_blocks = 16,
                   .num_host_blocks = num_host_blocks,
                   .max_num_seqs = 4,
                   .max_batch_tokens = 40,
                   .prefill_chunk_tokens = 24,
                   .max_waiting = 8}) {}

  Scheduler scheduler;
  StepPlan plan;
  Batch batch;
  uint64_t copies = 0;

  // One step in which every sampled token is 1000. Returns "ticket:tokens" of each row, in order,
  // and "ticket:back" of who comes back from the host.
  std::string step() {
    scheduler.grow(1);
    scheduler.plan(plan);
    std::string rows;
    for (const StepPlan::Row& row : plan.rows) {
      rows += std::to_string(row.sequence->ticket) + ":" + std::to_string(row.num_tokens) + " ";
    }
    for (const StepPlan::Row& row : plan.returns) {
      rows += std::to_string(row.sequence->ticket) + ":back ";
    }
    scheduler.commit(plan, 1, batch);
    scheduler.expect(plan, copies += scheduler.restores().size());
    for (size_t i = 0; i < plan.rows.size(); ++i) {
      Sequence& sequence = *plan.rows[i].sequence;
      scheduler.advance(sequence, plan.rows[i].num_tokens);
      if (batch.items[i].sample) sequence.tokens.push_back(1000);
      if (sequence.output_tokens() == sequence.stop.max_tokens) scheduler.remove(sequence);
    }
    scheduler.check();
    return rows;
  }
};

TEST_F(SchedulerTest, DecodeRowsFirstThenChunksUpToTheBudget) {
  scheduler.enqueue(make(10, 8, 1));
  EXPECT_EQ(step(), "1:10 ");
  scheduler.enqueue(make(50, 2, 2, 0, 100));
  scheduler.enqueue(make(50, 2, 3, 0, 200));
  EXPECT_EQ(step(), "1:1 2:24 3:15 ");
  EXPECT_EQ(step(), "1:1 2:24 3:15 ");
  EXPECT_EQ(step(), "1:1 2:2 3:20 ");
  EXPECT_EQ(step(), "1:1 2:1 3:1 ");
}

// A step of 33 tokens would take as long as one of 64.
TEST(SchedulerChunks, ACutOneEndsWhereThePaddingDoes) {
  Scheduler scheduler({.num_blocks = 100,
                       .max_num_seqs = 4,
                       .max_batch_tokens = 128,
                       .prefill_chunk_tokens = 128,
                       .max_waiting = 8,
                       .full_steps = {8, 16, 32, 64, 128}});
  StepTimes times;
  times.seconds_per[2] = 0.001;  // a prompt token
  times.p95_factor = 1.0;
  StepPlan plan;
  Batch batch;
  const auto step = [&] {
    scheduler.plan(plan, times);
    std::string rows;
    for (const StepPlan::Row& row : plan.rows)
      rows += std::to_string(row.sequence->ticket) + ":" + std::to_string(row.num_tokens) + " ";
    scheduler.commit(plan, 1, batch);
    for (const StepPlan::Row& row : plan.rows) {
      scheduler.advance(*row.sequence, row.num_tokens);
      if (row.sequence->left() == 0) row.sequence->tokens.push_back(1000);
    }
    return rows;
  };
  auto stream = make(10, 100, 1);
  stream->tpot_target_ns = 50'000'000;  // 50 prompt tokens
  scheduler.enqueue(std::move(stream));
  EXPECT_EQ(step(), "1:10 ");
  times.ready = true;
  scheduler.enqueue(make(200, 4, 2, 0, 1000));
  EXPECT_EQ(step(), "1:1 2:31 ");
  scheduler.enqueue(make(20, 4, 3, 0, 2000));
  EXPECT_EQ(step(), "1:1 2:31 ");  // and nothing of another one for what is left of the time
  for (int i = 0; i < 3; ++i) EXPECT_EQ(step(), "1:1 2:31 ");
  EXPECT_EQ(step(), "1:1 2:45 ");  // what is not cut is as long as it is
  EXPECT_EQ(step(), "1:1 2:1 3:20 ");
  times.seconds_per[2] = 0.004;  // 12 prompt tokens
  scheduler.enqueue(make(40, 4, 4, 0, 3000));
  EXPECT_EQ(step(), "1:1 2:1 3:1 4:16 ");  // kLeastPromptTokens come before
}

TEST_F(SchedulerTest, PlanReadsOnly) {
  scheduler.enqueue(make(50, 20, 1));
  step();
  scheduler.enqueue(make(30, 20, 2));
  scheduler.plan(plan);
  const std::vector<StepPlan::Row> first = plan.rows;
  scheduler.plan(plan);
  ASSERT_EQ(plan.rows.size(), first.size());
  for (size_t i = 0; i < first.size(); ++i) {
    EXPECT_EQ(plan.rows[i].sequence, first[i].sequence);
    EXPECT_EQ(plan.rows[i].num_tokens, first[i].num_tokens);
  }
  EXPECT_EQ(scheduler.waiting().size(), 1U);
}

TEST_F(SchedulerTest, StartsOnlyWhatCanFinish) {
  scheduler.enqueue(make(16, 160, 1));         // 11 of 16 blocks, though it takes one at first
  scheduler.enqueue(make(16, 80, 2, 0, 100));  // 6: must wait
  scheduler.enqueue(make(8, 8, 3, 0, 200));    // would fit, but comes after 2
  EXPECT_EQ(step(), "1:16 ");
  EXPECT_EQ(scheduler.promised(), 10);
  for (int i = 0; i < 158; ++i) EXPECT_EQ(step(), "1:1 ");
  EXPECT_EQ(step(), "1:1 ");
  EXPECT_EQ(step(), "2:16 3:8 ");
}

TEST_F(SchedulerTest, WarmPrefixCostsOnlyTheRest) {
  scheduler.enqueue(make(40, 1, 1));
  step();
  step();
  EXPECT_EQ(scheduler.pool().cached(), 2);  // 40 tokens are two full blocks
  scheduler.enqueue(make(40, 1, 2));
  EXPECT_EQ(step(), "2:8 ");
  scheduler.enqueue(make(32, 1, 3));  // its last token must be computed: one block counts
  EXPECT_EQ(step(), "3:16 ");
}

TEST_F(SchedulerTest, SiblingsWaitForTheFirstOnesPrompt) {
  scheduler.enqueue(make(40, 4, 1, /*group=*/1));
  scheduler.enqueue(make(40, 4, 2, /*group=*/1));
  scheduler.enqueue(make(5, 4, 3, 0, 500));  // somebody else need not wait with them
  EXPECT_EQ(step(), "1:24 3:5 ");
  EXPECT_EQ(step(), "3:1 1:16 ");
  EXPECT_EQ(step(), "1:1 3:1 2:8 ");
  EXPECT_EQ(scheduler.running()[2]->block_table[0], scheduler.running()[0]->block_table[0]);
}

TEST_F(SchedulerTest, ShrunkPoolPausesTheYoungestAndResumesItFirst) {
  scheduler.enqueue(make(20, 60, 1));          // 5 blocks
  scheduler.enqueue(make(20, 60, 2, 0, 100));  // 5 blocks
  step();
  step();
  scheduler.set_pool_limit(7, 1);
  scheduler.check();
  EXPECT_EQ(scheduler.pauses(), 1U);
  ASSERT_EQ(scheduler.paused().size(), 1U);
  EXPECT_EQ(scheduler.paused()[0]->ticket, 2U);
  EXPECT_EQ(scheduler.paused()[0]->channel->facts().preemptions, 1);
  scheduler.enqueue(make(4, 4, 3, 0, 200));  // would fit, but the paused one comes first
  EXPECT_EQ(step(), "1:1 ");
  scheduler.set_pool_limit(16, 1);
  EXPECT_EQ(step(), "1:1 2:6 3:4 ");  // its first block was still cached
  scheduler.set_pool_limit(0, 1);
  scheduler.check();
  EXPECT_EQ(scheduler.pool().withheld(), 16);
  EXPECT_EQ(scheduler.paused().size(), 3U);
  EXPECT_EQ(scheduler.paused()[0]->ticket, 1U);
  EXPECT_EQ(step(), "");
}

// A client that gave no max_tokens, so the sequence takes blocks as it goes: it pauses with a token
// whose block was never reserved, and must not come back before that one can be had too.
TEST_F(SchedulerTest, APausedOneComesBackOnlyWithRoomForAllThatItHas) {
  scheduler.set_pool_limit(5, 1);
  scheduler.enqueue(make(16, 32, 1));  // 3 blocks
  auto growing = make(30, 50, 2, 0, 100);
  growing->reserved_blocks = 2;
  growing->block_table.reserve(5);
  scheduler.enqueue(std::move(growing));
  step();
  while (scheduler.pauses() == 0) step();
  ASSERT_EQ(scheduler.paused().size(), 1U);
  EXPECT_EQ(scheduler.paused()[0]->ticket, 2U);
  EXPECT_EQ(scheduler.paused()[0]->known(), 33);
  EXPECT_EQ(scheduler.paused()[0]->reserved_blocks, 3) << "the third is for its last token";
  EXPECT_EQ(step(), "1:1 ") << "two blocks are free, but it has three";
  scheduler.remove(*scheduler.running()[0]);
  while (!scheduler.running().empty() || !scheduler.paused().empty()) {
    ASSERT_NE(step(), "");
  }
  EXPECT_EQ(scheduler.pauses(), 1U) << "what it came back for was there";
}

// Two sequences of 22 tokens, of which the second was paused with 21 computed.
struct PausedOnHostTest : SchedulerTest {
  explicit PausedOnHostTest(int32_t num_host_blocks = 3) : SchedulerTest(num_host_blocks) {}
  void SetUp() override {
    scheduler.enqueue(make(20, 60, 1));          // 5 blocks
    scheduler.enqueue(make(20, 60, 2, 0, 100));  // 5 blocks
    step();
    step();
    blocks = scheduler.running()[1]->block_table;
    scheduler.set_pool_limit(7, 1);
    scheduler.check();
    ASSERT_EQ(scheduler.paused().size(), 1U);
  }
  std::vector<kv::BlockId> blocks;
};

TEST_F(PausedOnHostTest, BlocksGoToTheHostAndOnlyThoseThatAreGoneComeBack) {
  ASSERT_EQ(scheduler.saves().size(), 2U);
  EXPECT_EQ(scheduler.saves()[0].block, blocks[1]) << "the last one is taken first";
  EXPECT_EQ(scheduler.saves()[1].block, blocks[0]);
  const kv::BlockId host_block = scheduler.saves()[0].host_block;
  scheduler.clear_saves();
  EXPECT_EQ(scheduler.host_pool().held(), 2);
  EXPECT_EQ(step(), "1:1 ");
  scheduler.set_pool_limit(16, 1);
  EXPECT_EQ(step(), "1:1 2:back ");
  ASSERT_EQ(scheduler.restores().size(), 1U) << "its first block was still cached";
  EXPECT_EQ(scheduler.restores()[0].host_block, host_block);
  EXPECT_EQ(scheduler.restores()[0].block, scheduler.running()[1]->block_table[1]);
  EXPECT_EQ(scheduler.next_arrival(), 1U);
  EXPECT_EQ(step(), "1:1 ") << "it is not there yet";
  scheduler.arrive(1);
  EXPECT_EQ(scheduler.next_arrival(), 0U);
  EXPECT_EQ(scheduler.host_pool().held(), 0);
  EXPECT_EQ(step(), "1:1 2:1 ") << "nothing is computed again";
}

TEST_F(PausedOnHostTest, WhoIsPausedOnTheWayBackIsStillOnTheHost) {
  scheduler.clear_saves();
  scheduler.set_pool_limit(16, 1);
  EXPECT_EQ(step(), "1:1 2:back ");
  scheduler.set_pool_limit(7, 1);
  EXPECT_TRUE(scheduler.saves().empty());
  EXPECT_EQ(scheduler.host_pool().held(), 2);
  scheduler.set_pool_limit(16, 1);
  EXPECT_EQ(step(), "1:1 2:back ");
  scheduler.arrive(copies);
  EXPECT_EQ(step(), "1:1 2:1 ");
}

TEST_F(PausedOnHostTest, WhatThePrefixCacheHasIsNotCopiedBack) {
  scheduler.remove(*scheduler.paused()[0]);
  scheduler.remove(*scheduler.running()[0]);
  scheduler.set_pool_limit(16, 1);
  scheduler.clear_saves();
  scheduler.enqueue(make(16, 20, 3, 0, 200));
  EXPECT_EQ(step(), "3:16 ");
  scheduler.pause_last(1);
  EXPECT_EQ(scheduler.saves().size(), 1U);
  EXPECT_EQ(step(), "3:1 ");
  EXPECT_TRUE(scheduler.restores().empty());
  EXPECT_EQ(scheduler.host_pool().held(), 0);
}

TEST_F(PausedOnHostTest, RemoveGivesBackThePlacesOnTheHost) {
  scheduler.clear_saves();
  EXPECT_EQ(scheduler.remove(*scheduler.paused()[0])->ticket, 2U);
  scheduler.check();
  EXPECT_EQ(scheduler.host_pool().held(), 0);
}

TEST_F(PausedOnHostTest, RemoveOnTheWayBackGivesBackBoth) {
  scheduler.clear_saves();
  scheduler.set_pool_limit(16, 1);
  EXPECT_EQ(step(), "1:1 2:back ");
  EXPECT_EQ(scheduler.remove(*scheduler.running()[1])->ticket, 2U);
  scheduler.check();
  EXPECT_EQ(scheduler.host_pool().held(), 0);
  EXPECT_EQ(scheduler.pool().held(), 2);
}

struct FullHostTest : PausedOnHostTest {
  FullHostTest() : PausedOnHostTest(1) {}
};

TEST_F(FullHostTest, WhatHasNoRoomOnTheHostIsComputedAgain) {
  EXPECT_TRUE(scheduler.saves().empty()) << "two blocks, and one place";
  EXPECT_EQ(scheduler.host_pool().held(), 0);
  scheduler.set_pool_limit(16, 1);
  EXPECT_EQ(step(), "1:1 2:6 ");
}

TEST_F(SchedulerTest, RemoveGivesBackWhateverTheState) {
  scheduler.enqueue(make(20, 60, 1));
  step();
  scheduler.enqueue(make(20, 300, 2));
  EXPECT_EQ(scheduler.remove(*scheduler.waiting()[0])->ticket, 2U);
  EXPECT_EQ(scheduler.remove(*scheduler.running()[0])->ticket, 1U);
  scheduler.check();
  EXPECT_EQ(scheduler.pool().held(), 0);
  EXPECT_EQ(scheduler.promised(), 0);
}

}  // namespace
}  // namespace puna::engine
