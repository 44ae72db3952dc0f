// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/thread_pool.h"

#include <gtest/gtest.h>

#include <vector>

namespace puna::kernels {
namespace {

TEST(ThreadPool, EveryLaneRunsOnceWithItsIndex) {
  for (const int32_t threads : {1, 2, 3, 8}) {
    const auto pool = ThreadPool::create(threads).value();
    EXPECT_EQ(pool->size(), threads);
    std::vector<int> runs(static_cast<size_t>(threads), 0);
    for (int step = 0; step < 100; ++step) {
      pool->run([&](Lane& lane) {
        EXPECT_EQ(lane.count(), threads);
        ++runs[static_cast<size_t>(lane.index())];
      });
    }
    EXPECT_EQ(runs, std::vector<int>(static_cast<size_t>(threads), 100));
  }
}

// Each lane reads after the barrier what its neighbour wrote before it, many times over; more lanes
// than cores so that sleeping and waking are exercised. A data race shows under TSan.
TEST(ThreadPool, BarrierOrdersWritesBeforeReads) {
  for (const int32_t threads : {2, 3, 7}) {
    const auto pool = ThreadPool::create(threads).value();
    std::vector<int> cells(static_cast<size_t>(threads), 0);
    std::vector<int> errors(static_cast<size_t>(threads), 0);
    pool->run([&](Lane& lane) {
      const auto own = static_cast<size_t>(lane.index());
      const size_t next = (own + 1) % cells.size();
      for (int round = 1; round <= 500; ++round) {
        cells[own] = round;
        lane.sync();
        if (cells[next] != round) ++errors[own];
        lane.sync();
      }
    });
    EXPECT_EQ(errors, std::vector<int>(static_cast<size_t>(threads), 0));
  }
}

TEST(ThreadPool, SharesCoverEverythingOnce) {
  for (const int64_t items : {0, 1, 5, 64, 1001}) {
    for (const int32_t lanes : {1, 2, 3, 7}) {
      int64_t end = 0;
      for (int32_t i = 0; i < lanes; ++i) {
        const Lane::Range share = Lane(i, lanes).share(items);
        EXPECT_EQ(share.begin, end);
        EXPECT_LE(share.end - share.begin, items / lanes + 1);
        end = share.end;
      }
      EXPECT_EQ(end, items);
    }
  }
}

TEST(ThreadPool, RefusesAbsurdSizes) {
  for (const int32_t threads : {0, -3, ThreadPool::kMaxThreads + 1}) {
    const auto pool = ThreadPool::create(threads);
    ASSERT_FALSE(pool.ok());
    EXPECT_EQ(pool.error().code(), ErrorCode::kInvalidArgument);
  }
  EXPECT_GE(usable_cpus(), 1);
}

}  // namespace
}  // namespace puna::kernels
