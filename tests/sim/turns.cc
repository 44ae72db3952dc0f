// SPDX-License-Identifier: Apache-2.0
#include "turns.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace puna::sim {

namespace {

constexpr double kNotBoth = std::numeric_limits<double>::quiet_NaN();

}  // namespace

// Between classes: two lower ones may both be due, and a step may hold many starts.
Turns::Turns(std::vector<double> weights, int32_t max_running, bool late_news)
    : weights_(std::move(weights)),
      slack_(late_news ? 2.0 : 1.0),
      patience_(2 * engine::kStartsPerTurn + max_running),
      seats_(weights_.size() * engine::kNumClasses),
      gaps_(seats_.size() * weights_.size(), kNotBoth) {}

void Turns::begin_step() {
  for (Seat& seat : seats_) {
    seat.waits = false;
    seat.any_waits = false;
    seat.youngest_started = 0;
  }
  holding_ = {};
  starts_ = {};
}

void Turns::waits(size_t rank, size_t tenant, uint64_t ticket) {
  Seat& own = seat(rank, tenant);
  if (!own.waits || ticket < own.oldest_waiting) own.oldest_waiting = ticket;
  own.waits = true;
  own.any_waits = true;
}

void Turns::waits_for_sibling(size_t rank, size_t tenant) {
  seat(rank, tenant).any_waits = true;
  seat(rank, tenant).catches_up = true;
}

void Turns::holds_blocks(size_t rank) { holding_[rank] = true; }

void Turns::started(size_t rank, size_t tenant, uint64_t ticket) {
  Seat& own = seat(rank, tenant);
  own.youngest_started = std::max(own.youngest_started, ticket);
  ++starts_[rank];
}

void Turns::served(size_t rank, size_t tenant, double cost) {
  seat(rank, tenant).served += cost / weights_[tenant];
}

void Turns::exposed(size_t rank, size_t tenant, double cost) {
  double& exposure = seat(rank, tenant).exposure;
  exposure = std::max(exposure, cost / weights_[tenant]);
}

// When a tenant has its turn it is not ahead, and then it gets ahead by its exposure at most. So
// between any two moments the gap changes by both exposures at most.
bool Turns::unfair(size_t rank) {
  for (size_t a = 0; a < weights_.size(); ++a) {
    for (size_t b = 0; b < a; ++b) {
      const double bound = slack_ * (seat(rank, a).exposure + seat(rank, b).exposure);
      const double gap = seat(rank, a).served - seat(rank, b).served;
      double& since = gap_since(rank, a, b);
      const bool both = seat(rank, a).waits && seat(rank, b).waits;
      if (!both || seat(rank, a).catches_up || seat(rank, b).catches_up) {
        since = kNotBoth;
      } else if (std::isnan(since)) {
        since = gap;
      } else if (std::abs(gap - since) > bound) {
        return true;
      }
    }
  }
  return false;
}

std::string Turns::end_step() {
  for (Seat& seat : seats_) seat.catches_up = seat.catches_up && seat.any_waits;
  const int32_t all_starts = std::accumulate(starts_.begin(), starts_.end(), 0);
  for (size_t rank = 0; rank < engine::kNumClasses; ++rank) {
    if (unfair(rank)) return "tenants that both wait are not served alike";
    bool waits = false;
    for (size_t tenant = 0; tenant < weights_.size(); ++tenant) {
      const Seat& own = seat(rank, tenant);
      waits = waits || own.waits;
      if (own.waits && own.oldest_waiting < own.youngest_started) {
        return "a younger call of the same tenant and class started first";
      }
    }
    const bool has_its_turn = starts_[rank] > 0 || holding_[rank] || !waits;
    passed_[rank] = has_its_turn ? 0 : passed_[rank] + all_starts;
    if (passed_[rank] > patience_) return "a class starves";
  }
  return {};
}

}  // namespace puna::sim
