// SPDX-License-Identifier: Apache-2.0
// Runs seeds. A failing one prints the line that repeats it, also when a CHECK aborts.
#pragma once

#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include <unistd.h>

#include "simulation.h"

namespace puna::sim {

inline constexpr uint64_t kStepsPerSeed = 1000;

inline std::array<char, 128> repeat_line;

inline void print_repeat_line(int) {
  [[maybe_unused]] const auto written =
      write(STDERR_FILENO, repeat_line.data(), strlen(repeat_line.data()));
}

// The first broken promise with the line that repeats it, or nothing.
inline std::string run_seed(uint64_t seed, Events& total) {
  std::snprintf(repeat_line.data(), repeat_line.size(),
                "repeat with: PUNA_SIM_SEED=%llu sim_test\n",
                static_cast<unsigned long long>(seed));
  std::signal(SIGABRT, print_repeat_line);
  Simulation simulation(seed, kStepsPerSeed);
  const std::string problem = simulation.run();
  total.add(simulation.events());
  std::signal(SIGABRT, SIG_DFL);
  return problem.empty() ? problem : problem + "\n" + repeat_line.data();
}

inline uint64_t from_environment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

}  // namespace puna::sim
