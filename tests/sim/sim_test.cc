// SPDX-License-Identifier: Apache-2.0
// The fast suite of seeds, in shards that ctest runs side by side.
#include <gtest/gtest.h>

#include "sim_run.h"

namespace puna::sim {
namespace {

constexpr uint64_t kShards = 16;

struct Shard : ::testing::TestWithParam<uint64_t> {};

TEST_P(Shard, EverySeedKeepsThePromises) {
  Events total;
  if (std::getenv("PUNA_SIM_SEED") != nullptr) {
    if (GetParam() > 0) return;
    EXPECT_EQ(run_seed(from_environment("PUNA_SIM_SEED", 0), total), "");
    return;
  }
  const uint64_t seeds = from_environment("PUNA_SIM_SEEDS", PUNA_SIM_FAST_SEEDS);
  uint64_t run = 0;
  for (uint64_t seed = 1 + GetParam(); seed <= seeds; seed += kShards, ++run) {
    ASSERT_EQ(run_seed(seed, total), "");
  }
  std::printf(
      "%llu seeds, %llu steps: %llu answers, %llu cancelled, %llu late, %llu stopped, %llu "
      "refused, "
      "%llu impossible, %llu preemptions, %llu cached tokens, %llu blocks to the host and %llu "
      "back, "
      "%llu solo runs\n",
      static_cast<unsigned long long>(run), static_cast<unsigned long long>(total.steps),
      static_cast<unsigned long long>(total.answers),
      static_cast<unsigned long long>(total.cancelled), static_cast<unsigned long long>(total.late),
      static_cast<unsigned long long>(total.failed_by_stop),
      static_cast<unsigned long long>(total.refusals),
      static_cast<unsigned long long>(total.impossible),
      static_cast<unsigned long long>(total.preemptions),
      static_cast<unsigned long long>(total.cached_tokens),
      static_cast<unsigned long long>(total.saved_blocks),
      static_cast<unsigned long long>(total.restored_blocks),
      static_cast<unsigned long long>(total.solo_runs));
  if (run < 50) return;
  // The chaos reaches everything, or the suite proves less than it says.
  EXPECT_GE(total.steps, run * kStepsPerSeed);
  EXPECT_GT(total.answers, 10 * run);
  EXPECT_GT(total.cancelled, run);
  EXPECT_GT(total.late, run / 4);
  EXPECT_GT(total.failed_by_stop, run / 8);
  EXPECT_GT(total.refusals, run);
  EXPECT_GT(total.impossible, run / 8);
  EXPECT_GT(total.preemptions, run);
  EXPECT_GT(total.cached_tokens, 10 * run);
  EXPECT_GT(total.saved_blocks, run);
  EXPECT_GT(total.restored_blocks, run / 2);
}

INSTANTIATE_TEST_SUITE_P(SimTest, Shard, ::testing::Range(uint64_t{0}, kShards));

}  // namespace
}  // namespace puna::sim
