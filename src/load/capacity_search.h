// SPDX-License-Identifier: Apache-2.0
// The highest rate at which enough answers are good, by runs at one rate each: doubled or halved
// until the capacity lies between two rates, then in the (geometric) middle of them.
//
//   CapacitySearch search(1.0);
//   while (!search.ended()) search.note(good_share(run_at(search.rate())));
#pragma once

#include <cmath>

namespace puna::load {

class CapacitySearch {
 public:
  static constexpr double kGoodShare = 0.99;  // of all requests, refused ones too
  static constexpr double kPrecision = 1.1;   // between the rates that hold and that do not
  static constexpr int kMostRuns = 16;

  // `first_rate`: requests a second, above 0.
  explicit CapacitySearch(double first_rate) : rate_(first_rate) {}

  bool ended() const {
    return runs_ >= kMostRuns || (holds_ > 0 && breaks_ > 0 && breaks_ <= holds_ * kPrecision);
  }
  double rate() const { return rate_; }
  // What a run at rate() gave: good answers over all requests.
  void note(double good_share) {
    ++runs_;
    (good_share >= kGoodShare ? holds_ : breaks_) = rate_;
    if (holds_ > 0 && breaks_ > 0) {
      rate_ = std::sqrt(holds_ * breaks_);
    } else {
      rate_ *= holds_ > 0 ? 2.0 : 0.5;
    }
  }
  // The highest rate that held; 0 when not even the lowest did.
  double capacity() const { return holds_; }

 private:
  double rate_;
  double holds_ = 0;   // 0: none so far
  double breaks_ = 0;  // the same
  int runs_ = 0;
};

}  // namespace puna::load
