// SPDX-License-Identifier: Apache-2.0
// Would the simulation notice? Each bug is planted into an engine that is compiled for this test
// alone, and must be found within a few seeds, in a process of its own as a CHECK may abort.
#include <gtest/gtest.h>

#include "engine/planted_bug.h"
#include "sim_run.h"

namespace puna::sim {
namespace {

using engine::PlantedBug;

// Seeds until a promise breaks; then its words on stderr, and the end.
void search(PlantedBug bug, uint32_t every, uint64_t seeds) {
  engine::planted_bug = bug;
  engine::planted_every = every;
  Events total;
  for (uint64_t seed = 1; seed <= seeds; ++seed) {
    const std::string problem = run_seed(seed, total);
    if (problem.empty()) continue;
    std::fprintf(stderr, "%s", problem.c_str());
    std::_Exit(1);
  }
  std::_Exit(0);
}

constexpr uint64_t kSeeds = 100;

TEST(PlantedBug, NoneIsFoundWhereNoneIs) {
  EXPECT_EXIT(search(PlantedBug::kNone, 8, kSeeds), ::testing::ExitedWithCode(0), "");
}

TEST(PlantedBug, LeakedBlock) {
  EXPECT_DEATH(search(PlantedBug::kLeakedBlock, 8, kSeeds), "pool_.references.*repeat with");
}

TEST(PlantedBug, DoubleFree) {
  EXPECT_DEATH(search(PlantedBug::kDoubleFree, 8, kSeeds), "CHECK failed.*repeat with");
}

TEST(PlantedBug, UnfairPick) {
  EXPECT_EXIT(search(PlantedBug::kUnfairPick, 1, kSeeds), ::testing::ExitedWithCode(1),
              "not served alike");
}

TEST(PlantedBug, MissedCancel) {
  EXPECT_EXIT(search(PlantedBug::kMissedCancel, 8, kSeeds), ::testing::ExitedWithCode(1),
              "a client that left");
}

TEST(PlantedBug, LostWakeUp) {
  EXPECT_EXIT(search(PlantedBug::kLostWakeUp, 8, kSeeds), ::testing::ExitedWithCode(1),
              "was not woken");
}

TEST(PlantedBug, EarlyResume) {
  EXPECT_DEATH(search(PlantedBug::kEarlyResume, 1, kSeeds), "reserved_blocks.*repeat with");
}

TEST(PlantedBug, TokenAfterEnd) {
  EXPECT_EXIT(search(PlantedBug::kTokenAfterEnd, 8, kSeeds), ::testing::ExitedWithCode(1),
              "an event after the last one");
}

// What a paused sequence had is not there when it comes back, or is not its own.
TEST(PlantedBug, LostSave) {
  EXPECT_DEATH(search(PlantedBug::kLostSave, 2, kSeeds), "read\\.(token|position).*repeat with");
}

TEST(PlantedBug, MixedUpRestore) {
  EXPECT_DEATH(search(PlantedBug::kMixedUpRestore, 2, kSeeds),
               "read\\.(token|position).*repeat with");
}

TEST(PlantedBug, EarlyReturn) {
  EXPECT_DEATH(search(PlantedBug::kEarlyReturn, 8, kSeeds), "arrives_with_.*repeat with");
}

TEST(PlantedBug, LeakedHostBlock) {
  EXPECT_DEATH(search(PlantedBug::kLeakedHostBlock, 8, kSeeds), "host_pool_.*repeat with");
}

}  // namespace
}  // namespace puna::sim
