// SPDX-License-Identifier: Apache-2.0
// Random numbers that are the same from the same seed with every compiler and library, which the
// distributions of <random> don't promise.
//
//   Random random(seed);
//   const double wait_s = random.exponential(1 / rate);
#pragma once

#include <cmath>
#include <cstdint>

#include "base/check.h"

namespace puna::load {

// SplitMix64.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t next() {
    state_ += 0x9E3779B97F4A7C15U;
    uint64_t mixed = state_;
    mixed = (mixed ^ (mixed >> 30U)) * 0xBF58476D1CE4E5B9U;
    mixed = (mixed ^ (mixed >> 27U)) * 0x94D049BB133111EBU;
    return mixed ^ (mixed >> 31U);
  }
  // In [0, 1).
  double uniform() { return static_cast<double>(next() >> 11U) * 0x1.0p-53; }
  // In [low, high]. The bias of the remainder is below 2^-32 for the ranges in use.
  int64_t between(int64_t low, int64_t high) {
    CHECK_LE(low, high);
    const auto span = static_cast<uint64_t>(high - low) + 1;
    return low + static_cast<int64_t>(next() % span);
  }
  double exponential(double mean) { return -mean * std::log1p(-uniform()); }
  double normal() {
    constexpr double kTwoPi = 6.283185307179586;
    const double radius = std::sqrt(exponential(2));
    return radius * std::cos(kTwoPi * uniform());
  }
  // Another sequence, which depends on the seed and the numbers drawn so far.
  Random fork() { return Random(next()); }

 private:
  uint64_t state_;
};

}  // namespace puna::load
