// SPDX-License-Identifier: Apache-2.0
// What one seed stands for: the backend's limits, the engine's rules, who the clients are and how
// they behave. Most scenarios are small (few tokens in the vocabulary, short texts), so that many
// steps fit a second; some are as wide as the tests of the engine.
//
//   Scenario scenario(seed);
//   engine::Request request = scenario.make_request();
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "engine/engine.h"
#include "engine/null_backend.h"

namespace puna::sim {

class Dice {
 public:
  explicit Dice(uint64_t seed) : random_(seed) {}
  uint64_t pick(uint64_t below) { return random_() % below; }
  int32_t between(int32_t low, int32_t high) {
    return low + static_cast<int32_t>(pick(static_cast<uint64_t>(high - low) + 1));
  }
  bool chance(uint64_t one_in) { return pick(one_in) == 0; }

 private:
  std::mt19937_64 random_;
};

class Scenario {
 public:
  explicit Scenario(uint64_t seed);

  engine::Request make_request(TimeNs now_ns);
  // Tokens that may come at most, by the request, its class and the room there is; 0: the engine
  // must call it impossible.
  int32_t most_output(const engine::Request& request) const;

  Dice dice;
  engine::NullBackendConfig backend;
  engine::EngineConfig engine;
  bool slow_readers = false;  // some clients read late, or only at the end
  bool faults = false;        // stalls, shrinking pools
  bool impatient = false;     // clients leave, and have deadlines
  bool calibrated = false;
  TimeNs decode_step_ns = 0;  // a step with every slot decoding

 private:
  void make_backend(bool wide);
  void make_engine();
  engine::SamplingParams make_sampling();
  engine::StopRules make_stop();
  void fit(engine::Request& request);

  int32_t num_classes_ = engine::kNumClasses;  // that calls have
  int32_t longest_prompt_ = 0;
  int32_t longest_output_ = 0;
  std::vector<std::vector<engine::TokenId>> prefixes_;  // beginnings that prompts share
};

}  // namespace puna::sim
