// SPDX-License-Identifier: Apache-2.0
// The step loop allocates nothing: this program counts what operator new hands out on this thread
// while the engine is stepped by hand, from a request's admission to its end.
#include <gtest/gtest.h>

#include <cstdlib>
#include <new>

#include "base/sanitizers.h"
#include "engine/engine.h"
#include "engine/solo_run.h"

#define PUNA_COUNTS_ALLOCATIONS (PUNA_SANITIZED == 0)

namespace {
thread_local int64_t allocations = 0;
}

#if PUNA_COUNTS_ALLOCATIONS
void* operator new(size_t bytes) {
  ++allocations;
  void* memory = std::malloc(bytes);
  if (memory == nullptr) std::abort();
  return memory;
}
void* operator new(size_t bytes, std::align_val_t alignment) {
  ++allocations;
  const auto unit = static_cast<size_t>(alignment);
  void* memory = std::aligned_alloc(unit, (bytes + unit - 1) / unit * unit);
  if (memory == nullptr) std::abort();
  return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { std::free(memory); }
#endif

namespace puna::engine {
namespace {

TEST(AllocationTest, TheStepLoopAllocatesNothing) {
  if (PUNA_COUNTS_ALLOCATIONS == 0) GTEST_SKIP() << "the sanitizer owns operator new";
  const model::Tokenizer tokenizer = tiny_tokenizer();
  VirtualClock clock;
  NullBackend backend({.limits = {.num_blocks = 64,
                                  .max_num_seqs = 6,
                                  .max_batch_tokens = 64,
                                  .max_model_len = 512,
                                  .vocab_size = kTinyVocab,
                                  .num_host_blocks = 8},
                       .block_copy_ns = kNsPerMs},
                      &clock);
  Engine engine({.prefill_chunk_tokens = 32}, backend, tokenizer, clock);
  struct QuietWaker final : Waker {
    void wake() noexcept override {}
  } waker;
  std::vector<ChannelPtr> channels;
  for (uint64_t seed = 0; seed < 20; ++seed) {  // more than run at once; some share a prompt
    Request request;
    request.prompt.assign(20 + seed % 5 * 30, static_cast<TokenId>(seed % 4));
    request.sampling = {.temperature = seed % 2 == 0 ? 0.0F : 0.9F,
                        .top_k = seed % 3 == 0 ? 0 : 40,
                        .top_p = seed % 3 == 1 ? 1.0F : 0.9F,
                        .min_p = 0.01F,
                        .repetition_penalty = 1.1F,
                        .frequency_penalty = 0.1F,
                        .seed = seed,
                        .top_logprobs = static_cast<int32_t>(seed % 6)};
    request.stop.max_tokens = 70;
    if (seed % 4 == 1) request.stop.stop_strings = {"never in the text", "nor this"};
    auto submission = engine.submit({request}, &waker);
    ASSERT_TRUE(submission.ok() && submission->refusal == nullptr);
    channels.push_back(submission->channels[0]);
  }
  const int64_t before = allocations;
  ASSERT_GT(before, 0) << "the counter does not count";
  int steps = 0;
  while (engine.step()) {
    ++steps;
    // Pausing and resuming allocate nothing either, by way of the host or without.
    if (steps == 30) engine.set_pool_limit(10);
    if (steps == 40) engine.set_pool_limit(64);
    if (steps == 60) channels[7]->cancel();
  }
  EXPECT_EQ(allocations, before) << "in " << steps << " steps";
  EXPECT_GT(steps, 100);
  EXPECT_GT(engine.stats().preemptions.value(), 1U);
  EXPECT_GT(engine.stats().kv_blocks_swapped_in.value(), 0U);
}

}  // namespace
}  // namespace puna::engine
