// SPDX-License-Identifier: Apache-2.0
// Pauses by way of host memory: what is copied, who waits for it, and that nothing is computed
// twice or left behind. The engine stepped by hand over the NullBackend.
#include "engine/engine_fixture.h"

namespace puna::engine {
namespace {

struct EnginePauseTest : EngineTest {
  // With places for so many blocks on the host, and copies that take so long each.
  static NullBackendConfig with_host(int32_t num_host_blocks, TimeNs block_copy_ns) {
    NullBackendConfig made = backend_config();
    made.limits.num_host_blocks = num_host_blocks;
    made.block_copy_ns = block_copy_ns;
    return made;
  }
};

// A pause with a place on the host: nothing is computed twice.
TEST_F(EnginePauseTest, APausedRequestsBlocksGoToTheHostAndBack) {
  NullBackend host_backend(with_host(20, kNsPerMs), &clock);
  Engine engine(config, host_backend, tokenizer, clock);
  const Request made = request(200, 40);
  const ChannelPtr channel = submit(engine, made);
  for (int i = 0; i < 12; ++i) engine.step();
  engine.set_pool_limit(0);
  EXPECT_FALSE(engine.step());
  engine.check_invariants();
  EXPECT_EQ(engine.stats().kv_blocks_swapped_out.value(), 13U);
  EXPECT_EQ(engine.stats().host_kv_usage.value(), 13.0 / 20);
  EXPECT_EQ(engine.stats().kv_cache_usage.value(), 0.0);
  clock.advance(100 * kNsPerMs);
  const TimeNs before_ns = clock.now_ns();
  engine.set_pool_limit(128);
  EXPECT_TRUE(engine.step());
  EXPECT_EQ(clock.now_ns() - before_ns, 13 * kNsPerMs) << "waits for the copies and no longer";
  run(engine);
  Answer read;
  read.read(*channel);
  expect_solo(read, made);
  EXPECT_EQ(engine.stats().kv_blocks_swapped_in.value(), 13U);
  EXPECT_EQ(engine.stats().host_kv_usage.value(), 0.0);
  EXPECT_EQ(engine.stats().iteration_tokens.sum(), 200.0 + 39.0);
}

TEST_F(EnginePauseTest, StreamsKeepTheirPaceWhileBlocksAreCopied) {
  NullBackend host_backend(with_host(64, 10 * kNsPerMs), &clock);
  Engine engine(config, host_backend, tokenizer, clock);
  const Request stays = request(20, 100, 1);
  const ChannelPtr stream = submit(engine, stays);
  const ChannelPtr paused = submit(engine, request(300, 60, 2));
  for (int i = 0; i < 20; ++i) engine.step();
  engine.set_pool_limit(8);  // what the first one reserved
  const TimeNs step_ns = backend_config().step_ns + backend_config().decode_row_ns;
  for (int i = 0; engine.stats().kv_blocks_swapped_in.value() == 0 || i < 50; ++i) {
    if (i == 10) engine.set_pool_limit(128);
    const TimeNs before_ns = clock.now_ns();
    ASSERT_TRUE(engine.step());
    engine.check_invariants();
    EXPECT_EQ(clock.now_ns() - before_ns, step_ns) << i;
  }
  EXPECT_EQ(paused->facts().preemptions, 1);
  EXPECT_EQ(engine.stats().requests_running.value(), 2.0) << "it holds its blocks already";
  run(engine);
  Answer read;
  read.read(*stream);
  expect_solo(read, stays);
}

TEST_F(EnginePauseTest, WhoEndsWhilePausedLeavesTheHostToo) {
  NullBackend host_backend(with_host(64, 10 * kNsPerMs), &clock);
  Engine engine(config, host_backend, tokenizer, clock);
  Request late = request(100, 60, 1);
  late.deadline_ns = clock.now_ns() + kNsPerSecond;
  const ChannelPtr expires = submit(engine, late);
  const ChannelPtr leaves = submit(engine, request(100, 60, 2));
  const ChannelPtr returns = submit(engine, request(100, 60, 3));
  for (int i = 0; i < 20; ++i) engine.step();
  engine.set_pool_limit(0);
  engine.step();
  EXPECT_EQ(engine.stats().host_kv_usage.value(), 24.0 / 64);
  engine.cancel(*leaves);
  clock.advance(kNsPerSecond);
  engine.step();
  engine.check_invariants();
  EXPECT_EQ(engine.stats().finished_cancelled.value(), 1U);
  EXPECT_EQ(engine.stats().finished_deadline.value(), 1U);
  EXPECT_EQ(engine.stats().host_kv_usage.value(), 8.0 / 64);
  engine.set_pool_limit(128);
  EXPECT_FALSE(engine.drain(0)) << "it still has something to say";
  run(engine);
  EXPECT_TRUE(engine.drain(0));
  EXPECT_EQ(engine.stats().finished_length.value(), 1U);
  EXPECT_EQ(engine.stats().host_kv_usage.value(), 0.0);
}

}  // namespace
}  // namespace puna::engine
