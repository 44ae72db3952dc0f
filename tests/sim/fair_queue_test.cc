// SPDX-License-Identifier: Apache-2.0
// A tenant that floods the server gets its share and no more, although the queue has an end.
#include "overload_run.h"

namespace puna::sim {
namespace {

constexpr double kAtMost = 1.2;  // times the weighted share

std::vector<double> median_shares(const Overload& load) {
  std::vector<std::vector<double>> of_tenant(load.tenants.size());
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    OverloadRun run(load, seed);
    run.run(20);
    const std::vector<double> shares = run.shares();
    for (size_t i = 0; i < shares.size(); ++i) of_tenant[i].push_back(shares[i]);
  }
  std::vector<double> medians;
  for (auto& shares : of_tenant) {
    std::sort(shares.begin(), shares.end());
    medians.push_back(shares[2]);
  }
  return medians;
}

TEST(FairQueue, AFloodOfOneTenantLeavesTheOtherItsHalf) {
  // The light one offers 0.8 of what can be done, the heavy one fifty times that.
  const auto shares = median_shares(
      {.factor = 0.8 * 51, .tenants = {{.name = "heavy"}, {.name = "light"}}, .sends = {50, 1}});
  std::printf("heavy %.3f, light %.3f\n", shares[0], shares[1]);
  EXPECT_LE(shares[0], kAtMost * 0.5);
}

TEST(FairQueue, SharesFollowTheWeights) {
  const auto shares = median_shares({.factor = 0.8 * 52,
                                     .tenants = {{.name = "heavy", .weight = 1},
                                                 {.name = "light", .weight = 3},
                                                 {.name = "lightest", .weight = 1}},
                                     .sends = {50, 1, 1}});
  std::printf("heavy %.3f, light %.3f, lightest %.3f\n", shares[0], shares[1], shares[2]);
  EXPECT_LE(shares[0], kAtMost * 0.2);
  EXPECT_LE(shares[1], kAtMost * 0.6);
  EXPECT_LE(shares[2], kAtMost * 0.2);
}

TEST(FairQueue, AFewRequestsAreServedDuringAFlood) {
  // The light one offers a twentieth of what can be done, less than its share: it gets all of it.
  const auto shares = median_shares(
      {.factor = 10, .tenants = {{.name = "heavy"}, {.name = "light"}}, .sends = {199, 1}});
  std::printf("light %.3f of 0.05 offered\n", shares[1]);
  EXPECT_GE(shares[1], 0.04);
}

int64_t most_waiting(const Overload& load) {
  OverloadRun run(load, 1);
  run.run(20);
  return run.most_waiting();
}

TEST(FairQueue, OneTenantFillsTheQueueAndOneOfTwoLeavesAQuarter) {
  EXPECT_EQ(most_waiting({.max_queued_requests = 16, .factor = 10}), 16);
  EXPECT_EQ(most_waiting({.max_queued_requests = 16,
                          .factor = 10,
                          .tenants = {{.name = "alone"}, {.name = "idle"}},
                          .sends = {1, 0}}),
            12);
}

}  // namespace
}  // namespace puna::sim
