// SPDX-License-Identifier: Apache-2.0
#include "api/token_rate.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace puna::api {
namespace {

constexpr TimeNs kStart = 1'000 * kNsPerSecond;

TEST(TokenRate, AMinutesTokensAreThereAtOnceAndFlowInEvenly) {
  TokenRate rate(600);
  EXPECT_EQ(rate.remaining(kStart), 600);
  EXPECT_EQ(rate.take(600, kStart), 0);
  EXPECT_EQ(rate.remaining(kStart), 0);
  EXPECT_EQ(rate.full_after(kStart), 60 * kNsPerSecond);
  EXPECT_EQ(rate.take(10, kStart), kNsPerSecond) << "10 tokens flow in within a second";
  EXPECT_EQ(rate.take(10, kStart + kNsPerSecond), 0);
  EXPECT_EQ(rate.remaining(kStart + 31 * kNsPerSecond), 300);
  EXPECT_EQ(rate.remaining(kStart + 1'000 * kNsPerSecond), 600) << "never more than a minute's";
}

TEST(TokenRate, WhatTheBucketNeverHoldsIsSaidToBeSo) {
  TokenRate rate(100);
  EXPECT_EQ(rate.take(101, kStart), std::nullopt);
  EXPECT_EQ(rate.take(100, kStart), 0);
}

TEST(TokenRate, UnusedTokensComeBackAndOveruseIsPaidLater) {
  TokenRate rate(100);
  EXPECT_EQ(rate.take(100, kStart), 0);
  rate.give_back(40);
  EXPECT_EQ(rate.remaining(kStart), 40);
  rate.give_back(-100);
  EXPECT_EQ(rate.remaining(kStart), 0);
  EXPECT_EQ(rate.take(10, kStart), 42 * kNsPerSecond) << "60 in debt, and 10: 70% of a minute less";
}

TEST(TokenRate, WithoutALimitEverythingIsTaken) {
  TokenRate rate(0);
  EXPECT_EQ(rate.take(INT64_MAX, kStart), 0);
}

TEST(TokenRate, ThreadsNeverTakeMoreThanThereIs) {
  TokenRate rate(10'000);
  std::atomic<int64_t> taken{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < 5'000; ++n) {
        if (rate.take(1, kStart) == TimeNs{0}) taken.fetch_add(1);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(taken.load(), 10'000);
}

}  // namespace
}  // namespace puna::api
