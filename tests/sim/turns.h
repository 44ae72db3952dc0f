// SPDX-License-Identifier: Apache-2.0
// A witness of whose turn it was, who knows nothing of how the engine decides. Told after each step
// who waits, who started and what was served, it holds three promises against that:
//   - inside a class, tenants that both keep waiting are served alike (tokens over weight), within
//     the bound of Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024
//   - of one tenant and class, calls start in the order in which they came
//   - a class that waits with nothing running gets a start in so many
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "engine/fair_share.h"

namespace puna::sim {

class Turns {
 public:
  // `late_news`: served() comes some time after the fact, though before the answer's end.
  Turns(std::vector<double> weights, int32_t max_running, bool late_news);

  void begin_step();
  // Somebody of the class and tenant has waited for its first step since before this one, and could
  // start; `ticket` rises with arrival.
  void waits(size_t rank, size_t tenant, uint64_t ticket);
  // The same, but another choice of its call computes the prompt that it will share. It keeps its
  // tenant's place in the order meanwhile, so the tenant may catch up later.
  void waits_for_sibling(size_t rank, size_t tenant);
  void holds_blocks(size_t rank);  // somebody of the class runs or is paused
  void started(size_t rank, size_t tenant, uint64_t ticket);
  void served(size_t rank, size_t tenant, double cost);
  // After a start: the most that the tenant can be charged before its next turn, for the prompts
  // that began now and what all that run may still say.
  void exposed(size_t rank, size_t tenant, double cost);
  // The first broken promise in words, or nothing.
  std::string end_step();

 private:
  struct Seat {  // of a tenant in a class
    bool waits = false;
    bool any_waits = false;
    bool catches_up = false;  // somebody waited for a sibling since nobody of the seat waited
    uint64_t oldest_waiting = 0;
    uint64_t youngest_started = 0;
    double served = 0;    // over weight
    double exposure = 0;  // the largest, over weight
  };
  Seat& seat(size_t rank, size_t tenant) { return seats_[rank * weights_.size() + tenant]; }
  double& gap_since(size_t rank, size_t a, size_t b) {
    return gaps_[(rank * weights_.size() + a) * weights_.size() + b];
  }
  bool unfair(size_t rank);

  std::vector<double> weights_;
  double slack_;
  int32_t patience_;
  std::vector<Seat> seats_;  // [classes, tenants]
  // Of two tenants: by how much one was ahead when both began to wait; NaN: not both wait.
  std::vector<double> gaps_;  // [classes, tenants, tenants]
  std::array<bool, engine::kNumClasses> holding_ = {};
  std::array<int32_t, engine::kNumClasses> starts_ = {};
  std::array<int32_t, engine::kNumClasses> passed_ = {};
};

}  // namespace puna::sim
