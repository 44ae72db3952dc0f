// SPDX-License-Identifier: Apache-2.0
// The engine stepped by hand over the NullBackend, in virtual time.
#include "engine/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <random>

#include "engine/engine_fixture.h"

namespace puna::engine {
namespace {

using ::testing::HasSubstr;

// The first step of a burst starts what fits into it; its rate says nothing of those that come
// after.
TEST_F(EngineTest, ABurstAtTheStartIsNotRefusedForTheRateOfItsFirstStep) {
  NullBackendConfig slow = backend_config();
  slow.step_ns = 700 * kNsPerMs;
  NullBackend slow_backend(slow, &clock);
  config.max_queued_requests = 256;
  config.max_queued_tokens = 100'000;
  Engine engine(config, slow_backend, tokenizer, clock);
  engine.calibrate(kNsPerSecond);
  std::vector<Engine::Submission> burst;
  for (int i = 0; i < 100; ++i) {
    burst.push_back(engine.submit({request(60, 2)}, &waker).value());
    EXPECT_EQ(burst.back().refusal, nullptr) << i << ": " << burst.back().refusal->message;
    if (i == 90) engine.step();
  }
  // Once the rate is known, a wait beyond the limit is refused (a calibration of nine steps stays
  // enough for that).
  for (int i = 0; i < 6; ++i) engine.step();
  std::unique_ptr<Refusal> refusal;
  for (int i = 0; i < 100 && refusal == nullptr; ++i) {
    burst.push_back(engine.submit({request(60, 2)}, &waker).value());
    refusal = std::move(burst.back().refusal);
  }
  ASSERT_NE(refusal, nullptr);
  EXPECT_THAT(refusal->message, HasSubstr("over the limit of 30.0 s"));
}

TEST_F(EngineTest, AnswersOneRequest) {
  Engine engine(config, backend, tokenizer, clock);
  EXPECT_FALSE(engine.step());
  Request made = request(100, 20);
  made.sampling.top_logprobs = 5;
  const Answer read = answer(engine, made);
  expect_solo(read, made);
  EXPECT_EQ(read.tokens.size(), 20U);
  EXPECT_EQ(read.finish, FinishReason::kLength);
  EXPECT_EQ(engine.stats().finished_length.value(), 1U);
  EXPECT_EQ(engine.stats().prompt_tokens.value(), 100U);
  EXPECT_EQ(engine.stats().generation_tokens.value(), 20U);
  EXPECT_EQ(engine.stats().steps.value(), 4U + 19U);  // four chunks, the last one gives a token
  EXPECT_EQ(engine.stats().kv_cache_usage.value(), 0.0);
  EXPECT_GT(waker.count, 0);
  EXPECT_LE(waker.count, 20);
}

TEST_F(EngineTest, EndsAtEachStopRule) {
  Engine engine(config, backend, tokenizer, clock);
  Request made = request(30, 200);
  const SoloAnswer all = solo_run(made, tokenizer, kTinyVocab);
  made.stop.stop_token_ids = {all.tokens[40]};
  Answer read = answer(engine, made);
  expect_solo(read, made);
  EXPECT_TRUE(read.is_stop_token);
  EXPECT_EQ(read.finish, FinishReason::kStop);

  made.stop.min_tokens = 60;  // the stop token is banned until then
  read = answer(engine, made);
  expect_solo(read, made);
  EXPECT_GE(read.tokens.size(), 60U);

  made = request(30, 200);  // a stop string across two tokens
  size_t at = 20;
  while (all.tokens[at] >= 0x80 || all.tokens[at + 1] >= 0x80) ++at;
  made.stop.stop_strings = {
      {static_cast<char>(all.tokens[at]), static_cast<char>(all.tokens[at + 1])}};
  read = answer(engine, made);
  expect_solo(read, made);
  EXPECT_LE(read.tokens.size(), at + 2);
  EXPECT_FALSE(read.is_stop_token);

  made = request(30, 400);  // the model's own end
  made.stop.ignore_eos = false;
  made.sampling.logit_bias = {{tokenizer.end_of_generation()[0], 5.0F}};
  read = answer(engine, made);
  expect_solo(read, made);
  EXPECT_EQ(read.finish, FinishReason::kStop);
  EXPECT_TRUE(read.is_stop_token);
}

TEST_F(EngineTest, RefusesWhatCanNeverRunWithExactCounts) {
  Engine engine(config, backend, tokenizer, clock);
  const auto error_of = [&](const Request& made) {
    auto submission = engine.submit({made}, &waker);
    EXPECT_FALSE(submission.ok());
    EXPECT_EQ(submission.error().code(), ErrorCode::kInvalidArgument);
    return submission.error().message();
  };
  EXPECT_THAT(error_of(request(500, 20)),
              HasSubstr("maximum context length is 512 tokens. However, you requested 520 tokens "
                        "(500 in the messages, 20 in the completion)"));
  EXPECT_THAT(error_of(request(0, 20)), HasSubstr("empty"));
  EXPECT_THAT(error_of(request(5, 0)), HasSubstr("max_tokens"));
  Request made = request(5, 5);
  made.prompt[2] = kTinyVocab;
  EXPECT_THAT(error_of(made), HasSubstr("512"));
  made = request(5, 5);
  made.sampling.logit_bias = {{-1, 1.0F}};
  EXPECT_THAT(error_of(made), HasSubstr("logit_bias"));
  made = request(5, 5);
  made.stop.stop_token_ids = {5, 100000};
  EXPECT_THAT(error_of(made), HasSubstr("stop_token_ids"));
  made = request(5, 5);
  made.stop.min_tokens = 6;
  EXPECT_THAT(error_of(made), HasSubstr("min_tokens"));
  EXPECT_FALSE(engine.submit({}, &waker).ok());
}

TEST_F(EngineTest, BoundsTheQueueInRequestsAndTokens) {
  Engine engine(config, backend, tokenizer, clock);
  std::vector<ChannelPtr> taken;
  for (uint64_t seed = 0; seed < 16; ++seed) taken.push_back(submit(engine, request(10, 4, seed)));
  auto refused = engine.submit({request(10, 4)}, &waker);
  ASSERT_TRUE(refused.ok() && refused->refusal != nullptr);
  EXPECT_TRUE(refused->channels.empty());
  EXPECT_FALSE(refused->refusal->draining);
  EXPECT_EQ(refused->refusal->tokens_ahead, 160);
  EXPECT_EQ(refused->refusal->retry_after_s, 1.0) << "nothing was measured yet";
  run(engine);

  taken.clear();
  taken.push_back(submit(engine, request(500, 4)));
  for (int i = 0; i < 3; ++i) taken.push_back(submit(engine, request(500, 4)));
  refused = engine.submit({request(1, 4)}, &waker);
  ASSERT_TRUE(refused.ok() && refused->refusal != nullptr);
  EXPECT_EQ(refused->refusal->tokens_ahead, 2000);
  EXPECT_GT(refused->refusal->retry_after_s, 0.0);
  EXPECT_NE(refused->refusal->retry_after_s, 1.0) << "measured by now";
  EXPECT_EQ(engine.stats().refusals.value(), 2U);
  run(engine);
  EXPECT_NE(submit(engine, request(1, 4)), nullptr);
  run(engine);
}

TEST_F(EngineTest, RetryAfterFollowsTheMeasuredRate) {
  // One slot, and a step of one second for each request of one chunk and one token.
  NullBackendConfig slow = backend_config();
  slow.step_ns = 1000 * kNsPerMs;
  slow.prefill_token_ns = 0;
  slow.decode_row_ns = 0;
  slow.limits.max_num_seqs = 1;
  for (ClassPolicy& policy : config.classes) policy.max_queue_time_ns = 0;
  NullBackend slow_backend(slow, &clock);
  Engine engine(config, slow_backend, tokenizer, clock);
  std::vector<ChannelPtr> taken;
  for (uint64_t seed = 0; seed < 16; ++seed) {  // until steps are known
    submit(engine, request(16, 1, seed));
    while (engine.step()) {
    }
  }
  for (uint64_t seed = 30; seed < 46; ++seed) taken.push_back(submit(engine, request(16, 1, seed)));
  for (int i = 0; i < 8; ++i) engine.step();
  for (uint64_t seed = 20; seed < 28; ++seed) taken.push_back(submit(engine, request(16, 1, seed)));
  auto refused = engine.submit({request(16, 1), request(16, 1)}, &waker);
  ASSERT_TRUE(refused.ok() && refused->refusal != nullptr);
  EXPECT_NEAR(refused->refusal->retry_after_s, 1.0, 0.01)
      << "two places: one when the next step begins, the other a second later";
}

TEST_F(EngineTest, MemoryOfRequestsIsBoundedAndGivenBackWithTheChannel) {
  const int64_t one = request_bytes(20, 100, -1);
  config.max_request_bytes = 2 * one;
  Engine engine(config, backend, tokenizer, clock);
  ChannelPtr first = submit(engine, request(20, 100, 1));
  ChannelPtr second = submit(engine, request(20, 100, 2));
  EXPECT_EQ(engine.request_bytes(), 2 * one);

  const auto third = engine.submit({request(20, 100, 3)}, &waker);
  ASSERT_TRUE(third.ok());
  ASSERT_NE(third->refusal, nullptr);
  EXPECT_EQ(third->refusal->reason, RefusalReason::kQueueFull);
  EXPECT_THAT(third->refusal->message, HasSubstr(std::to_string(2 * one)));
  EXPECT_GE(third->refusal->retry_after_s, 1.0);
  EXPECT_EQ(third->refusal->max_tokens_now, 0);
  EXPECT_EQ(engine.request_bytes(), 2 * one);

  // A call that can never be taken says so, and what to change.
  Request logprobs = request(20, 400, 4);
  logprobs.sampling.top_logprobs = kMaxTopLogprobs;
  const auto never = engine.submit({logprobs}, &waker);
  ASSERT_FALSE(never.ok());
  EXPECT_EQ(never.error().code(), ErrorCode::kInvalidArgument);
  EXPECT_THAT(never.error().message(), HasSubstr("logprobs"));

  run(engine);
  EXPECT_EQ(engine.request_bytes(), 2 * one) << "a reader still holds the answers";
  first.reset();
  EXPECT_EQ(engine.request_bytes(), one);
  const auto smaller = engine.submit({request(20, 200, 5)}, &waker);
  ASSERT_TRUE(smaller.ok());
  ASSERT_NE(smaller->refusal, nullptr);
  EXPECT_NEAR(smaller->refusal->max_tokens_now, 100, 2);  // what the message's promise is worth
  EXPECT_EQ(submit(engine, request(20, smaller->refusal->max_tokens_now, 5))->cancelled(), false);
  run(engine);
  second.reset();
  EXPECT_EQ(engine.request_bytes(), 0);
}

TEST_F(EngineTest, CancelFreesWithinOneStepWhereverItIs) {
  Engine engine(config, backend, tokenizer, clock);
  std::vector<ChannelPtr> channels;
  for (uint64_t seed = 0; seed < 12; ++seed)
    channels.push_back(submit(engine, request(40, 90, seed)));
  for (int i = 0; i < 5; ++i) engine.step();
  engine.cancel(*channels[0]);   // runs
  engine.cancel(*channels[11]);  // waits: all eight slots are taken
  EXPECT_EQ(engine.stats().requests_running.value(), 8.0);
  engine.step();
  engine.check_invariants();
  for (size_t i : {size_t{0}, size_t{11}}) {
    Answer read;
    read.read(*channels[i]);
    EXPECT_EQ(read.finish, FinishReason::kCancelled);
  }
  EXPECT_EQ(engine.stats().finished_cancelled.value(), 2U);
  for (const ChannelPtr& channel : channels) channel->cancel();
  EXPECT_TRUE(engine.step());
  EXPECT_FALSE(engine.step());
  EXPECT_EQ(engine.stats().kv_cache_usage.value(), 0.0);
  EXPECT_EQ(engine.stats().finished_cancelled.value(), 12U);
}

TEST_F(EngineTest, ChoicesOfOneCallShareThePromptsBlocks) {
  Engine engine(config, backend, tokenizer, clock);
  std::vector<Request> choices(4, request(100, 10));
  for (size_t i = 0; i < choices.size(); ++i) choices[i].sampling.seed = i;
  auto submission = engine.submit(choices, &waker);
  ASSERT_TRUE(submission.ok());
  run(engine);
  for (size_t i = 0; i < choices.size(); ++i) {
    Answer read;
    read.read(*submission->channels[i]);
    expect_solo(read, choices[i]);
    EXPECT_EQ(submission->channels[i]->facts().cached_prompt_tokens, i == 0 ? 0 : 96);
  }
  EXPECT_EQ(engine.stats().prefix_cache_queries.value(), 400U);
  EXPECT_EQ(engine.stats().prefix_cache_hits.value(), 3U * 96U);
}

// Chats without max_tokens reserve a default and grow: in a pool that all of them outgrow they take
// turns, and each gets its whole answer.
TEST_F(EngineTest, AnswersThatOutgrowThePoolTakeTurnsAndAllFinish) {
  NullBackendConfig small = backend_config();
  small.limits.num_blocks = 12;
  NullBackend small_backend(small, &clock);
  for (ClassPolicy& policy : config.classes) policy.default_output_tokens = 16;
  Engine engine(config, small_backend, tokenizer, clock);
  std::vector<Request> requests;
  std::vector<ChannelPtr> channels;
  for (uint64_t seed = 0; seed < 6; ++seed) {
    requests.push_back(request(10 + static_cast<int32_t>(seed), 90, seed));
    requests.back().max_tokens_given = false;
    channels.push_back(submit(engine, requests.back()));
  }
  run(engine);
  for (size_t i = 0; i < requests.size(); ++i) {
    Answer read;
    read.read(*channels[i]);
    expect_solo(read, requests[i]);
  }
  EXPECT_GT(engine.stats().preemptions.value(), 0U);
}

TEST_F(EngineTest, SaltsDoNotShare) {
  Engine engine(config, backend, tokenizer, clock);
  Request made = request(100, 10);
  answer(engine, made);
  const ChannelPtr same = submit(engine, made);
  made.cache_salt = 1;
  const ChannelPtr other = submit(engine, made);
  run(engine);
  EXPECT_EQ(same->facts().cached_prompt_tokens, 96);
  EXPECT_EQ(other->facts().cached_prompt_tokens, 0);
}

TEST_F(EngineTest, WakesEachReaderOncePerStep) {
  Engine engine(config, backend, tokenizer, clock);
  CountingWaker other;
  for (uint64_t seed = 0; seed < 6; ++seed) submit(engine, request(4, 10, seed));
  auto submission = engine.submit({request(4, 10, 7), request(4, 10, 8)}, &other);
  engine.step();
  EXPECT_EQ(waker.count, 1);
  EXPECT_EQ(other.count, 1);
  engine.step();
  EXPECT_EQ(waker.count, 2);
  EXPECT_EQ(other.count, 2);
  run(engine);
}

TEST_F(EngineTest, NothingIsQuotedBeforeStepTimesAreKnown) {
  Engine engine(config, backend, tokenizer, clock);
  const ChannelPtr channel = submit(engine, request(100, 3));
  run(engine);
  EXPECT_EQ(channel->facts().quoted_ttft_p95_ns, 0);
  EXPECT_EQ(engine.stats().ttft_over_quote.sum(), 0.0);
}

// Nobody waits: a small request starts in the free blocks, a large one when an answer has ended.
TEST_F(EngineTest, AQuoteCountsTheRequestsOwnBlocks) {
  NullBackendConfig small = backend_config();
  small.limits.num_blocks = 126;
  NullBackend small_backend(small, &clock);
  Engine engine(config, small_backend, tokenizer, clock);
  engine.calibrate(300 * kNsPerMs);
  std::vector<ChannelPtr> running;  // 32 blocks each
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    running.push_back(submit(engine, request(410, 100, seed)));
  }
  running.push_back(submit(engine, request(100, 60, 4)));  // 10, as the next ones may want
  for (const ChannelPtr& each : running) {
    while (each->facts().first_token_ns == 0) engine.step();
  }
  const Quote little = *engine.quote(request(10, 4));
  const Quote large = *engine.quote(request(410, 100, 9));
  const ChannelPtr waits = submit(engine, request(410, 100, 9));
  const TimeNs asked_ns = clock.now_ns();
  while (waits->facts().first_token_ns == 0) engine.step();
  const double took_s = to_seconds(waits->facts().first_token_ns - asked_ns);
  EXPECT_LT(little.ttft_p50_s, 0.01);
  EXPECT_NEAR(large.ttft_p50_s, took_s, 0.25 * took_s);
  EXPECT_GT(took_s, 0.1);
}

TEST_F(EngineTest, AQuotedP95StaysAboveTheP50HoweverExactQuotesWere) {
  Engine engine(config, backend, tokenizer, clock);
  engine.calibrate(300 * kNsPerMs);
  for (uint64_t seed = 0; seed < 400; ++seed) {
    submit(engine, request(20, 2, seed));
    run(engine);
  }
  const Quote idle = *engine.quote(request(20, 2));
  EXPECT_NEAR(idle.ttft_p95_s, 1.3 * idle.ttft_p50_s, 1e-9);
  const ChannelPtr running = submit(engine, request(20, 20));
  engine.step();
  const Quote beside = *engine.quote(request(20, 2));
  EXPECT_NEAR(beside.ttft_p95_s, 1.3 * beside.ttft_p50_s + 0.025, 1e-3)
      << "half of a step of 50 ms more: it may have just begun";
}

TEST_F(EngineTest, WhatWasQuotedStandsInTheFactsAndInAMetric) {
  Engine engine(config, backend, tokenizer, clock);
  engine.calibrate(300 * kNsPerMs);
  const Quote quote = *engine.quote(request(90, 3));
  const ChannelPtr channel = submit(engine, request(90, 3));
  run(engine);
  const RequestFacts& facts = channel->facts();
  ASSERT_GT(quote.ttft_p95_s, quote.ttft_p50_s);
  EXPECT_NEAR(static_cast<double>(facts.quoted_ttft_p50_ns), quote.ttft_p50_s * 1e9, 1);
  EXPECT_NEAR(static_cast<double>(facts.quoted_ttft_p95_ns), quote.ttft_p95_s * 1e9, 1);
  const double ratio = static_cast<double>(facts.first_token_ns - facts.submitted_ns) /
                       static_cast<double>(facts.quoted_ttft_p95_ns);
  EXPECT_NEAR(engine.stats().ttft_over_quote.sum(), ratio, 1e-6);
}

TEST_F(EngineTest, FactsAreInOrderOfTime) {
  Engine engine(config, backend, tokenizer, clock);
  clock.advance(kNsPerSecond);
  const ChannelPtr channel = submit(engine, request(100, 10));
  clock.advance(kNsPerSecond);
  run(engine);
  const RequestFacts& facts = channel->facts();
  EXPECT_EQ(facts.submitted_ns, kNsPerSecond);
  EXPECT_EQ(facts.first_scheduled_ns, 2 * kNsPerSecond);
  EXPECT_GT(facts.first_token_ns, facts.first_scheduled_ns);
  EXPECT_GT(facts.finished_ns, facts.first_token_ns);
  EXPECT_EQ(engine.stats().time_to_first_token_s.sum(),
            static_cast<double>(facts.first_token_ns - facts.submitted_ns) / 1e9);
}

TEST_F(EngineTest, StopEndsWhatIsLeftWithAnError) {
  Engine engine(config, backend, tokenizer, clock);
  std::vector<ChannelPtr> channels;
  for (uint64_t seed = 0; seed < 12; ++seed)
    channels.push_back(submit(engine, request(40, 90, seed)));
  for (int i = 0; i < 5; ++i) engine.step();
  EXPECT_FALSE(engine.drain(0));
  EXPECT_TRUE(engine.draining());
  auto refused = engine.submit({request(4, 4)}, &waker);
  ASSERT_TRUE(refused.ok() && refused->refusal != nullptr);
  EXPECT_TRUE(refused->refusal->draining);
  engine.stop();
  for (const ChannelPtr& channel : channels) {
    Answer read;
    read.read(*channel);
    EXPECT_EQ(read.finish, FinishReason::kError);
  }
  EXPECT_TRUE(engine.drain(0));
  engine.check_invariants();
}

// Design §7: the same bits alone, in a crowd, with another chunk size, after eviction and pauses,
// computed again or copied from the host, from a warm prefix. The reference uses no engine at all.
TEST_F(EngineTest, SameBitsInAnyCompany) {
  std::mt19937_64 random(17);
  std::vector<Request> requests;
  for (uint64_t seed = 0; seed < 64; ++seed) {
    Request made = request(1 + static_cast<int32_t>(random() % 150),
                           1 + static_cast<int32_t>(random() % 60), seed % 8);
    made.sampling = {.temperature = static_cast<float>(random() % 3) * 0.7F,
                     .top_k = static_cast<int32_t>(random() % 2) * 20,
                     .top_p = random() % 2 == 0 ? 1.0F : 0.8F,
                     .repetition_penalty = random() % 2 == 0 ? 1.0F : 1.1F,
                     .presence_penalty = random() % 2 == 0 ? 0.0F : 0.5F,
                     .seed = seed,
                     .top_logprobs = static_cast<int32_t>(random() % 4) - 1};
    requests.push_back(std::move(made));
  }
  config.max_queued_requests = 64;
  config.max_queued_tokens = 100000;
  NullBackendConfig swapping = backend_config();
  swapping.block_copy_ns = kNsPerMs;
  for (const auto& [chunk, host_blocks] : {std::pair(7, 0), {32, 24}, {64, 128}}) {
    config.prefill_chunk_tokens = chunk;
    swapping.limits.num_host_blocks = host_blocks;
    NullBackend swapping_backend(swapping, &clock);
    Engine engine(config, swapping_backend, tokenizer, clock);
    for (int round = 0; round < 2; ++round) {  // the second from warm prefixes
      std::vector<ChannelPtr> channels;
      for (const Request& made : requests) channels.push_back(submit(engine, made));
      for (int step = 0; engine.step(); ++step) {
        if (step % 23 == 11) engine.set_pool_limit(static_cast<int32_t>(random() % 20));
        if (step % 23 == 14) engine.set_pool_limit(128);
        engine.check_invariants();
      }
      engine.set_pool_limit(128);
      run(engine);
      for (size_t i = 0; i < requests.size(); ++i) {
        Answer read;
        read.read(*channels[i]);
        SCOPED_TRACE(i);
        expect_solo(read, requests[i]);
      }
    }
    EXPECT_GT(engine.stats().preemptions.value(), 20U);
    EXPECT_GT(engine.stats().prefix_cache_hits.value(), 1000U);
    EXPECT_EQ(engine.stats().kv_blocks_swapped_in.value() > 0, host_blocks > 0);
  }
}

}  // namespace
}  // namespace puna::engine
