// SPDX-License-Identifier: Apache-2.0
// Whose turn it is. Inside a class, the tenant that was served least (tokens over weight) starts
// next: virtual token counters as in "Fairness in Serving Large Language Models" (Sheng et al.,
// OSDI 2024). A tenant that comes back from idling is lifted to those who waited meanwhile, so it
// can't cash in the time it was away. Between classes: priority, and one start in kStartsPerTurn
// for a lower class that waits. Engine thread only; no allocation after construction.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/request.h"

namespace puna::engine {

// What a token costs: an output token keeps a row busy for a step, prompt tokens share steps.
inline constexpr double kPromptTokenCost = 1.0;
inline constexpr double kOutputTokenCost = 2.0;
// A lower class that waits gets at least one of so many starts.
inline constexpr int32_t kStartsPerTurn = 8;

constexpr size_t index_of(RequestClass request_class) { return static_cast<size_t>(request_class); }

class FairShare {
 public:
  explicit FairShare(std::span<const double> weights);

  size_t tenants() const { return weights_.size(); }
  double counter(RequestClass request_class, int32_t tenant) const {
    return cell(request_class, tenant).counter;
  }
  // Waiting and paused ones.
  int32_t waiting(RequestClass request_class) const { return waiting_[index_of(request_class)]; }

  // A request of the tenant waits from now on; it no longer does.
  void arrive(RequestClass request_class, int32_t tenant);
  void leave(RequestClass request_class, int32_t tenant);
  // A running one was paused, and waits in its class ahead of everybody's turn; it no longer does.
  void pause(RequestClass request_class) { ++waiting_[index_of(request_class)]; }
  void resume(RequestClass request_class);
  // It starts: notes whose turn it was.
  void start(RequestClass request_class, int32_t tenant);
  void charge(RequestClass request_class, int32_t tenant, double cost);
  double charged(int32_t tenant, double cost) const {
    return cost / weights_[static_cast<size_t>(tenant)];
  }
  // Starts that went by while this class waited.
  int32_t passed_over(RequestClass request_class) const {
    return passed_over_[index_of(request_class)];
  }

 private:
  struct Cell {
    double counter = 0;
    int32_t waiting = 0;
  };
  const Cell& cell(RequestClass request_class, int32_t tenant) const {
    return cells_[index_of(request_class) * weights_.size() + static_cast<size_t>(tenant)];
  }
  Cell& cell(RequestClass request_class, int32_t tenant) {
    return cells_[index_of(request_class) * weights_.size() + static_cast<size_t>(tenant)];
  }

  std::vector<double> weights_;                        // [tenants]
  std::vector<Cell> cells_;                            // [classes, tenants]
  std::array<double, kNumClasses> last_started_ = {};  // the counter of the tenant that was picked
  std::array<int32_t, kNumClasses> waiting_ = {};
  std::array<int32_t, kNumClasses> passed_over_ = {};
};

}  // namespace puna::engine
