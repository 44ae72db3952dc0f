// SPDX-License-Identifier: Apache-2.0
// What a start shows and does before the server is ready: progress of loading, warm-up steps.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cli/load_progress.h"
#include "cli/warm_up.h"

namespace puna::cli {
namespace {

TEST(LoadProgressTest, APlainLineForEachQuarter) {
  std::string text;
  {
    LoadProgressPrinter printer(false, [&](std::string_view piece) { text += piece; });
    for (uint64_t done = 0; done <= 1000; done += 10) printer.update(done << 20, 1000 << 20);
  }
  EXPECT_EQ(text,
            "packing weights: 25 % of 1000.0 MiB\npacking weights: 50 % of 1000.0 MiB\n"
            "packing weights: 75 % of 1000.0 MiB\npacking weights: 100 % of 1000.0 MiB\n");
}

TEST(LoadProgressTest, ABarThatEndsItsLine) {
  std::string text;
  const auto write = [&](std::string_view piece) { text += piece; };
  {
    LoadProgressPrinter printer(true, write);
    for (uint64_t done = 0; done <= 1000; done += 10) printer.update(done << 20, 1000 << 20);
  }
  EXPECT_TRUE(text.starts_with("\rpacking weights [..............................]   0 %"));
  EXPECT_TRUE(
      text.ends_with("\rpacking weights [##############################] 100 % of "
                     "1000.0 MiB\n"))
      << text;
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
  text.clear();
  { LoadProgressPrinter(true, write).update(1, 2); }  // loading failed half-way
  EXPECT_TRUE(text.ends_with("MiB\n") || text.ends_with(" B\n")) << text;
}

// Counts what it is asked to run, and checks it as a real backend would.
class CountingBackend final : public engine::Backend {
 public:
  CountingBackend(const engine::BackendLimits& limits, VirtualClock& clock, TimeNs per_token_ns)
      : limits_(limits), clock_(clock), per_token_ns_(per_token_ns) {}

  std::string_view name() const override { return "counting"; }
  const engine::BackendLimits& limits() const override { return limits_; }
  void start(const engine::Batch& batch) override {
    ASSERT_LE(batch.num_tokens, limits_.max_batch_tokens);
    ASSERT_LE(batch.items.size(), static_cast<size_t>(limits_.max_num_seqs));
    int32_t tokens = 0;
    for (const engine::BatchItem& item : batch.items) {
      ASSERT_LE(item.num_tokens, limits_.max_model_len);
      ASSERT_EQ(item.tokens.size(), static_cast<size_t>(item.num_tokens));
      for (const kv::BlockId block : item.block_table) ASSERT_LT(block, limits_.num_blocks);
      tokens += item.num_tokens;
    }
    ASSERT_EQ(tokens, batch.num_tokens);
    clock_.advance(batch.num_tokens * per_token_ns_);
    largest_ = std::max(largest_, batch.num_tokens);
  }
  std::span<const engine::SampledToken> collect() override { return {}; }
  int32_t largest() const { return largest_; }

 private:
  engine::BackendLimits limits_;
  VirtualClock& clock_;
  TimeNs per_token_ns_;
  int32_t largest_ = 0;
};

TEST(WarmUp, AFastMachineRunsTheLargestStep) {
  VirtualClock clock;
  CountingBackend backend({.num_blocks = 100,
                           .max_num_seqs = 7,
                           .max_batch_tokens = 300,
                           .max_model_len = 128,
                           .vocab_size = 10},
                          clock, 1000);
  EXPECT_EQ(warm_up(backend, clock, 100 * kNsPerMs), 300);
  EXPECT_EQ(backend.largest(), 300);
}

TEST(WarmUp, ASlowMachineStopsInTime) {
  VirtualClock clock;
  CountingBackend backend({.num_blocks = 100,
                           .max_num_seqs = 4,
                           .max_batch_tokens = 512,
                           .max_model_len = 256,
                           .vocab_size = 10},
                          clock, 2 * kNsPerMs);
  const int32_t tokens = warm_up(backend, clock, 100 * kNsPerMs);
  EXPECT_LT(tokens, 64);
  EXPECT_GE(tokens, 8);
  EXPECT_LE(clock.now_ns(), 100 * kNsPerMs);
}

TEST(WarmUp, TinyLimitsAreObeyed) {
  VirtualClock clock;
  CountingBackend backend({.num_blocks = 2,
                           .max_num_seqs = 64,
                           .max_batch_tokens = 512,
                           .max_model_len = 32,
                           .vocab_size = 10},
                          clock, 1000);
  warm_up(backend, clock, 100 * kNsPerMs);
  EXPECT_GE(backend.largest(), 2);
}

}  // namespace
}  // namespace puna::cli
