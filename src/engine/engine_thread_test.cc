// SPDX-License-Identifier: Apache-2.0
// The engine on its own thread, with many submitters and cancellers; the suite also runs under
// TSan.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include "engine/engine.h"
#include "engine/solo_run.h"
#include "engine/step_turn.h"

namespace puna::engine {
namespace {

struct SignalWaker final : Waker {
  void wake() noexcept override {
    signal.fetch_add(1, std::memory_order_release);
    signal.notify_one();
  }
  std::atomic<uint32_t> signal{0};
};

Request request(std::mt19937_64& random) {
  Request made;
  made.prompt.assign(1 + random() % 60, static_cast<TokenId>(random() % 3));
  made.sampling = {.top_k = 30, .seed = random() % 5};
  made.stop.max_tokens = 1 + static_cast<int32_t>(random() % 40);
  if (random() % 4 == 0) made.stop.stop_strings = {"ab", "x"};
  return made;
}

// Reads until the answer ends; cancels after `cancel_after` tokens.
std::pair<std::vector<TokenId>, FinishReason> read_all(Engine& engine, RequestChannel& channel,
                                                       SignalWaker& waker, size_t cancel_after) {
  std::vector<TokenId> tokens;
  for (;;) {
    const uint32_t seen = waker.signal.load(std::memory_order_acquire);
    while (const TokenEvent* event = channel.next()) {
      if (event->token >= 0) tokens.push_back(event->token);
      if (event->finish != FinishReason::kNone) return {tokens, event->finish};
      if (tokens.size() == cancel_after) engine.cancel(channel);
    }
    waker.signal.wait(seen, std::memory_order_acquire);
  }
}

struct EngineThreadTest : ::testing::Test {
  model::Tokenizer tokenizer = tiny_tokenizer();
  SteadyClock clock;
  NullBackend backend{{.limits = {.num_blocks = 40,
                                  .max_num_seqs = 8,
                                  .max_batch_tokens = 64,
                                  .max_model_len = 128,
                                  .vocab_size = kTinyVocab}},
                      nullptr};
  std::array<SignalWaker, 6> wakers;  // outlive the engine, as Waker demands
};

TEST_F(EngineThreadTest, ManySubmittersAndCancellers) {
  Engine engine({.max_queued_requests = 8, .prefill_chunk_tokens = 16}, backend, tokenizer, clock);
  engine.start();
  std::atomic<int> finished{0};
  std::atomic<int> cancelled{0};
  const auto client = [&](uint64_t seed) {
    std::mt19937_64 random(seed);
    SignalWaker& waker = wakers[seed];
    for (int i = 0; i < 60;) {
      const Request made = request(random);
      auto submission = engine.submit({made}, &waker);
      ASSERT_TRUE(submission.ok());
      if (submission->refusal != nullptr) {
        std::this_thread::yield();
        continue;
      }
      ++i;
      const size_t cancel_after = random() % 3 == 0 ? random() % 10 : 1000;
      RequestChannel& channel = *submission->channels[0];
      if (cancel_after == 0) engine.cancel(channel);
      const auto [tokens, finish] = read_all(engine, channel, waker, cancel_after);
      const SoloAnswer solo = solo_run(made, tokenizer, kTinyVocab);
      if (finish == FinishReason::kCancelled) {
        ASSERT_LE(tokens.size(), solo.tokens.size());
        EXPECT_TRUE(std::equal(tokens.begin(), tokens.end(), solo.tokens.begin()));
        ++cancelled;
      } else {
        EXPECT_EQ(tokens, solo.tokens);
        EXPECT_EQ(finish, solo.finish);
        ++finished;
      }
    }
  };
  std::vector<std::thread> clients;
  for (uint64_t seed = 0; seed < 6; ++seed) clients.emplace_back(client, seed);
  std::mt19937_64 random(99);
  for (int i = 0; i < 30; ++i) {  // meanwhile the pool breathes, and a scrape reads the stats
    engine.set_pool_limit(static_cast<int32_t>(random() % 40));
    EXPECT_GE(engine.stats().kv_cache_usage.value(), 0.0);
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  engine.set_pool_limit(40);
  for (std::thread& thread : clients) thread.join();
  EXPECT_EQ(finished + cancelled, 360);
  EXPECT_GT(finished, 100);
  EXPECT_GT(cancelled, 0);
  EXPECT_TRUE(engine.drain(10 * kNsPerSecond));
  engine.stop();
  engine.check_invariants();
  EXPECT_EQ(engine.stats().requests_waiting.value(), 0.0);
}

TEST_F(EngineThreadTest, CancelWakesASleepingEngine) {
  Engine engine({}, backend, tokenizer, clock);
  engine.set_pool_limit(0);  // nothing can start: the engine sleeps with a request in its queue
  engine.start();
  std::mt19937_64 random(1);
  SignalWaker& waker = wakers[0];
  auto submission = engine.submit({request(random)}, &waker);
  ASSERT_TRUE(submission.ok());
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(submission->channels[0]->next(), nullptr);
  engine.cancel(*submission->channels[0]);
  EXPECT_EQ(read_all(engine, *submission->channels[0], waker, 1000).second,
            FinishReason::kCancelled);
}

TEST_F(EngineThreadTest, StopEndsEveryRequestThatWasTaken) {
  for (uint64_t round = 0; round < 20; ++round) {
    Engine engine({}, backend, tokenizer, clock);
    engine.start();
    const auto client = [&](uint64_t seed) {
      std::mt19937_64 random(round * 10 + seed);
      SignalWaker& waker = wakers[seed];
      for (;;) {
        auto submission = engine.submit({request(random), request(random)}, &waker);
        ASSERT_TRUE(submission.ok());
        if (submission->refusal != nullptr) {
          if (submission->refusal->draining) return;
          continue;
        }
        for (const ChannelPtr& channel : submission->channels) {
          EXPECT_NE(read_all(engine, *channel, waker, 1000).second, FinishReason::kNone);
        }
      }
    };
    std::vector<std::thread> clients;
    for (uint64_t seed = 0; seed < 4; ++seed) clients.emplace_back(client, seed);
    std::this_thread::sleep_for(std::chrono::milliseconds(round));
    engine.stop();
    for (std::thread& thread : clients) thread.join();
  }
}

TEST_F(EngineThreadTest, DrainFinishesWhatRuns) {
  Engine engine({}, backend, tokenizer, clock);
  engine.start();
  std::mt19937_64 random(5);
  SignalWaker& waker = wakers[0];
  std::vector<ChannelPtr> channels;
  std::vector<Request> requests;
  for (int i = 0; i < 20; ++i) {
    requests.push_back(request(random));
    auto submission = engine.submit({requests.back()}, &waker);
    ASSERT_TRUE(submission.ok() && submission->refusal == nullptr);
    channels.push_back(submission->channels[0]);
  }
  EXPECT_TRUE(engine.drain(20 * kNsPerSecond));
  for (size_t i = 0; i < channels.size(); ++i) {
    EXPECT_EQ(read_all(engine, *channels[i], waker, 1000).first,
              solo_run(requests[i], tokenizer, kTinyVocab).tokens);
  }
}

// One at a time, and nobody waits for ever.
TEST(EngineStepTurn, IsExclusiveAndEndsForAll) {
  constexpr int kThreads = 4;
  constexpr int kTurns = 3000;
  StepTurn turn;
  int inside = 0;  // not atomic on purpose
  std::array<int, kThreads> turns = {};
  std::atomic<int> ready{0};
  std::vector<std::thread> threads;
  for (size_t me = 0; me < kThreads; ++me) {
    threads.emplace_back([&, me] {
      ready.fetch_add(1);
      while (ready.load() < kThreads) std::this_thread::yield();
      for (int i = 0; i < kTurns; ++i) {
        turn.enter();
        EXPECT_EQ(++inside, 1);
        ++turns[me];
        --inside;
        turn.leave();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const int count : turns) EXPECT_EQ(count, kTurns);
}

// Fails when another's step has begun and not ended.
class AloneBackend final : public Backend {
 public:
  explicit AloneBackend(std::atomic<int>& inside) : inside_(inside) {}
  std::string_view name() const override { return "alone"; }
  const BackendLimits& limits() const override { return limits_; }
  void start(const Batch& /*batch*/) override {
    EXPECT_EQ(inside_.fetch_add(1), 0);
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
  std::span<const SampledToken> collect() override {
    inside_.fetch_sub(1);
    return {};
  }

 private:
  std::atomic<int>& inside_;
  const BackendLimits limits_;
};

TEST(EngineStepTurn, AStepEndsBeforeAnothersBegins) {
  StepTurn turn;
  std::atomic<int> inside{0};
  std::vector<std::thread> engines;
  for (int engine = 0; engine < 3; ++engine) {
    engines.emplace_back([&] {
      TurnBackend backend(std::make_unique<AloneBackend>(inside), turn);
      const Batch batch;
      for (int step = 0; step < 100; ++step) {
        backend.start(batch);
        backend.collect();
      }
    });
  }
  for (std::thread& thread : engines) thread.join();
}

}  // namespace
}  // namespace puna::engine
