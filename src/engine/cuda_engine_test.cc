// SPDX-License-Identifier: Apache-2.0
// The engine over the CUDA backend: a request's tokens and logprobs are the same alone, in a crowd,
// in other chunks, after pauses (computed again, or copied to the host and back) and evictions, and
// from a warm prefix.
#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "engine/cuda_backend.h"
#include "engine/engine.h"
#include "engine/solo_run.h"

namespace puna::engine {
namespace {

constexpr int32_t kBlocks = 96;
constexpr int32_t kRequests = 24;
constexpr int32_t kPauseEvery = 23;  // steps

struct SilentWaker final : Waker {
  void wake() noexcept override {}
};

struct Answer {
  std::vector<TokenId> tokens;
  std::vector<float> logprobs;  // of the tokens and of their alternatives

  void read(RequestChannel& channel) {
    while (const TokenEvent* event = channel.next()) {
      if (event->token < 0) continue;
      tokens.push_back(event->token);
      logprobs.push_back(event->logprob);
      for (int i = 0; i < event->num_top; ++i) logprobs.push_back(channel.top_of_last()[i].logprob);
    }
  }
};

std::vector<Request> mixed_requests() {
  std::mt19937_64 random(17);
  std::vector<Request> requests(kRequests);
  for (size_t i = 0; i < requests.size(); ++i) {
    Request& made = requests[i];
    made.prompt.resize(1 + random() % 300);
    std::mt19937_64 words(i % 8);  // some prompts begin alike
    for (TokenId& id : made.prompt) id = static_cast<TokenId>(words() % 256);
    made.sampling.seed = i;
    made.sampling.temperature = static_cast<float>(random() % 3) * 0.7F;
    made.sampling.top_p = random() % 2 == 0 ? 1.0F : 0.8F;
    made.sampling.presence_penalty = random() % 4 == 0 ? 0.5F : 0.0F;
    made.sampling.top_logprobs = i % 2 == 0 ? -1 : 2;
    made.stop.max_tokens = 1 + static_cast<int32_t>(random() % 60);
    made.stop.ignore_eos = true;
  }
  return requests;
}

// The parameter: places for blocks on the host. With 24 some who are paused find no room.
class CudaEngineTest : public testing::TestWithParam<int32_t> {
 protected:
  CudaEngineTest() {
    const auto checkpoint =
        formats::Checkpoint::open(std::string(PUNA_GOLDEN_DIR) + "/tiny_llama_hf").value();
    auto made = make_cuda_backend(checkpoint, {.num_blocks = kBlocks,
                                               .num_host_blocks = GetParam(),
                                               .max_num_seqs = 8,
                                               .max_batch_tokens = 64,
                                               .max_model_len = 512});
    EXPECT_TRUE(made.ok()) << made.error().message();
    backend_ = std::move(made->backend);
  }

  ChannelPtr submit(Engine& engine, const Request& made) {
    auto submission = engine.submit({made}, &waker_);
    CHECK(submission.ok() && submission->channels.size() == 1);
    return submission->channels[0];
  }

  std::vector<Answer> alone(const std::vector<Request>& requests) {
    config_.prefix_cache = false;
    config_.prefill_chunk_tokens = 64;
    std::vector<Answer> answers(requests.size());
    Engine engine(config_, *backend_, tokenizer_, clock_);
    for (size_t i = 0; i < requests.size(); ++i) {
      const ChannelPtr channel = submit(engine, requests[i]);
      while (engine.step()) continue;
      answers[i].read(*channel);
    }
    return answers;
  }

  const model::Tokenizer tokenizer_ = tiny_tokenizer();
  const SteadyClock clock_;
  SilentWaker waker_;
  EngineConfig config_ = {.max_queued_requests = 64,
                          .max_queued_tokens = 100000,
                          .prefill_chunk_tokens = 64,
                          .chunk_sizing = false};
  std::unique_ptr<Backend> backend_;
};

TEST_P(CudaEngineTest, SameBitsInAnyCompanyAfterPausesAndFromWarmPrefixes) {
  const std::vector<Request> requests = mixed_requests();
  const std::vector<Answer> expected = alone(requests);
  config_.prefix_cache = true;
  std::mt19937 random(3);
  for (const int32_t chunk : {7, 32, 64}) {
    config_.prefill_chunk_tokens = chunk;
    Engine engine(config_, *backend_, tokenizer_, clock_);
    for (int round = 0; round < 2; ++round) {  // the second from warm prefixes
      std::vector<ChannelPtr> channels;
      for (const Request& made : requests) channels.push_back(submit(engine, made));
      for (int step = 0; engine.step(); ++step) {
        if (step % kPauseEvery == 11) engine.set_pool_limit(static_cast<int32_t>(random() % 20));
        if (step % kPauseEvery == 14) engine.set_pool_limit(kBlocks);
        engine.check_invariants();
      }
      engine.set_pool_limit(kBlocks);
      while (engine.step()) engine.check_invariants();
      for (size_t i = 0; i < requests.size(); ++i) {
        SCOPED_TRACE(testing::Message() << "request " << i << ", chunks of " << chunk);
        Answer read;
        read.read(*channels[i]);
        ASSERT_EQ(read.tokens.size(), static_cast<size_t>(requests[i].stop.max_tokens));
        EXPECT_EQ(read.tokens, expected[i].tokens);
        EXPECT_EQ(read.logprobs, expected[i].logprobs);
      }
    }
    EXPECT_GT(engine.stats().preemptions.value(), 10U);
    EXPECT_GT(engine.stats().prefix_cache_hits.value(), 300U);
    EXPECT_EQ(engine.stats().kv_blocks_swapped_in.value() > 0, GetParam() > 0);
  }
}

INSTANTIATE_TEST_SUITE_P(HostBlocks, CudaEngineTest, testing::Values(0, 24, kBlocks),
                         [](const auto& of) { return std::to_string(of.param); });

}  // namespace
}  // namespace puna::engine
