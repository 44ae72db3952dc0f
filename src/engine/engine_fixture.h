// SPDX-License-Identifier: Apache-2.0
// For tests: an engine stepped by hand over the NullBackend, in virtual time, and answers compared
// with their solo run.
#pragma once

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "base/check.h"
#include "engine/engine.h"
#include "engine/solo_run.h"

namespace puna::engine {

struct CountingWaker final : Waker {
  void wake() noexcept override { ++count; }
  int count = 0;
};

struct Answer {
  std::vector<TokenId> tokens;
  std::vector<float> logprobs;
  std::vector<std::vector<TokenLogprob>> top;
  FinishReason finish = FinishReason::kNone;
  bool is_stop_token = false;

  void read(RequestChannel& channel) {
    while (const TokenEvent* event = channel.next()) {
      EXPECT_EQ(finish, FinishReason::kNone) << "an event after the last one";
      finish = event->finish;
      is_stop_token = event->is_stop_token;
      if (event->token < 0) continue;
      tokens.push_back(event->token);
      logprobs.push_back(event->logprob);
      top.emplace_back(channel.top_of_last(), channel.top_of_last() + event->num_top);
    }
  }
};

inline NullBackendConfig backend_config() {
  return {.limits = {.num_blocks = 128,
                     .max_num_seqs = 8,
                     .max_batch_tokens = 64,
                     .max_model_len = 512,
                     .vocab_size = kTinyVocab}};
}

struct EngineTest : ::testing::Test {
  model::Tokenizer tokenizer = tiny_tokenizer();
  VirtualClock clock;
  NullBackend backend{backend_config(), &clock};
  EngineConfig config{.max_queued_requests = 16,
                      .max_queued_tokens = 2000,
                      .prefill_chunk_tokens = 32,
                      .model_digest = 5};
  CountingWaker waker;

  static Request request(int32_t prompt, int32_t max_tokens, uint64_t seed = 1) {
    Request made;
    made.prompt.resize(static_cast<size_t>(prompt));
    std::mt19937_64 random(seed);
    for (TokenId& id : made.prompt) id = static_cast<TokenId>(random() % 256);
    made.sampling.seed = seed;
    made.stop.max_tokens = max_tokens;
    made.stop.ignore_eos = true;
    return made;
  }
  ChannelPtr submit(Engine& engine, const Request& made) {
    auto submission = engine.submit({made}, &waker);
    CHECK(submission.ok() && submission->channels.size() == 1);
    return submission->channels[0];
  }
  void run(Engine& engine) {
    while (engine.step()) engine.check_invariants();
  }
  Answer answer(Engine& engine, const Request& made) {
    const ChannelPtr channel = submit(engine, made);
    run(engine);
    Answer read;
    read.read(*channel);
    return read;
  }
  void expect_solo(const Answer& read, const Request& made) {
    const SoloAnswer solo = solo_run(made, tokenizer, kTinyVocab);
    EXPECT_EQ(read.tokens, solo.tokens);
    EXPECT_EQ(read.logprobs, solo.logprobs);
    EXPECT_EQ(read.finish, solo.finish);
    ASSERT_EQ(read.top.size(), solo.top.size());
    for (size_t i = 0; i < read.top.size(); ++i) {
      ASSERT_EQ(read.top[i].size(), solo.top[i].size());
      for (size_t j = 0; j < read.top[i].size(); ++j) {
        EXPECT_EQ(read.top[i][j].token, solo.top[i][j].token);
        EXPECT_EQ(read.top[i][j].logprob, solo.top[i][j].logprob);
      }
    }
  }
};

}  // namespace puna::engine
