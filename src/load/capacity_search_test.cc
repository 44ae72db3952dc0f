// SPDX-License-Identifier: Apache-2.0
#include "load/capacity_search.h"

#include <gtest/gtest.h>

namespace puna::load {
namespace {

// A server that keeps its promises up to `capacity`.
double found(double capacity, double first_rate, int* runs = nullptr) {
  CapacitySearch search(first_rate);
  int count = 0;
  for (; !search.ended(); ++count) search.note(search.rate() <= capacity ? 1.0 : 0.5);
  if (runs != nullptr) *runs = count;
  return search.capacity();
}

TEST(CapacitySearch, FindsItFromBelowAndAbove) {
  for (const double capacity : {0.3, 1.0, 7.0, 40.0}) {
    for (const double first : {0.1, 1.0, 64.0}) {
      const double rate = found(capacity, first);
      EXPECT_LE(rate, capacity) << "from " << first;
      EXPECT_GT(rate, capacity / CapacitySearch::kPrecision - 1e-9) << "from " << first;
    }
  }
}

TEST(CapacitySearch, ServersWithoutCapacityOrWithoutEndStopIt) {
  int runs = 0;
  EXPECT_EQ(found(0.0, 1.0, &runs), 0.0);
  EXPECT_EQ(runs, CapacitySearch::kMostRuns);
  EXPECT_EQ(found(1e9, 1.0, &runs), 32768.0);
  EXPECT_EQ(runs, CapacitySearch::kMostRuns);
}

TEST(CapacitySearch, OneBadAnswerInAHundredIsTaken) {
  CapacitySearch search(4.0);
  search.note(0.99);
  EXPECT_EQ(search.capacity(), 4.0);
  search.note(0.98);
  EXPECT_EQ(search.capacity(), 4.0);
  EXPECT_NEAR(search.rate(), std::sqrt(32.0), 1e-9);
}

}  // namespace
}  // namespace puna::load
