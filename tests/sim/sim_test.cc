// SPDX-License-Identifier: Apache-2.0
// The fast suite of seeds. A failing seed prints one line that repeats it, also when a CHECK
// aborts.
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "simulation.h"

namespace puna::sim {
namespace {

std::array<char, 128> repeat_line;

void print_repeat_line(int) {
  [[maybe_unused]] const auto written =
      write(STDERR_FILENO, repeat_line.data(), strlen(repeat_line.data()));
}

void run_seed(uint64_t seed, Events& total) {
  std::snprintf(repeat_line.data(), repeat_line.size(),
                "repeat with: PUNA_SIM_SEED=%llu sim_test\n",
                static_cast<unsigned long long>(seed));
  Simulation simulation(seed);
  const std::string problem = simulation.run();
  EXPECT_TRUE(problem.empty()) << problem << "\n" << repeat_line.data();
  const Events& events = simulation.events();
  total.answers += events.answers;
  total.cancelled += events.cancelled;
  total.failed_by_stop += events.failed_by_stop;
  total.refusals += events.refusals;
  total.impossible += events.impossible;
  total.preemptions += events.preemptions;
  total.cached_tokens += events.cached_tokens;
  total.steps += events.steps;
}

uint64_t from_environment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

TEST(SimTest, EverySeedKeepsThePromises) {
  std::signal(SIGABRT, print_repeat_line);
  Events total;
  if (std::getenv("PUNA_SIM_SEED") != nullptr) {
    run_seed(from_environment("PUNA_SIM_SEED", 0), total);
    return;
  }
  const uint64_t seeds = from_environment("PUNA_SIM_SEEDS", 400);
  for (uint64_t seed = 1; seed <= seeds && !HasFailure(); ++seed) run_seed(seed, total);
  std::signal(SIGABRT, SIG_DFL);
  std::printf(
      "%llu seeds: %llu answers, %llu cancelled, %llu stopped, %llu refused, %llu impossible, "
      "%llu preemptions, %llu cached tokens, %llu steps\n",
      static_cast<unsigned long long>(seeds), static_cast<unsigned long long>(total.answers),
      static_cast<unsigned long long>(total.cancelled),
      static_cast<unsigned long long>(total.failed_by_stop),
      static_cast<unsigned long long>(total.refusals),
      static_cast<unsigned long long>(total.impossible),
      static_cast<unsigned long long>(total.preemptions),
      static_cast<unsigned long long>(total.cached_tokens),
      static_cast<unsigned long long>(total.steps));
  if (HasFailure() || seeds < 100) return;
  // The chaos reaches everything, or the suite proves less than it says.
  EXPECT_GT(total.answers, seeds);
  EXPECT_GT(total.cancelled, seeds / 4);
  EXPECT_GT(total.failed_by_stop, 0U);
  EXPECT_GT(total.refusals, seeds / 4);
  EXPECT_GT(total.impossible, 0U);
  EXPECT_GT(total.preemptions, seeds / 4);
  EXPECT_GT(total.cached_tokens, seeds);
}

}  // namespace
}  // namespace puna::sim
