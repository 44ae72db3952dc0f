// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <numeric>
#include <thread>
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

// Deal after deal in one run; each item is a plain counter, so that one dealt twice races too.
TEST(ThreadPool, DealsEveryItemOnce) {
  for (const int32_t threads : {1, 2, 3, 8}) {
    const auto pool = ThreadPool::create(threads).value();
    for (const int64_t items : {0, 1, 2, 7, 64, 1001}) {
      constexpr int kDeals = 20;
      std::vector<int> dealt(static_cast<size_t>(items), 0);
      for (int run = 0; run < 2; ++run) {
        pool->run([&](Lane& lane) {
          for (int deal = 0; deal < kDeals; ++deal) {
            lane.deal(items, [&](int64_t item) { ++dealt[static_cast<size_t>(item)]; });
            lane.sync();
          }
        });
      }
      EXPECT_EQ(dealt, std::vector<int>(static_cast<size_t>(items), 2 * kDeals))
          << threads << " threads, " << items << " items";
    }
  }
}

TEST(ThreadPool, OthersTakeTheShareOfALaneThatComesLate) {
  constexpr int64_t kItems = 100;
  for (const int32_t threads : {2, 3, 8}) {
    const auto pool = ThreadPool::create(threads).value();
    for (int32_t late = 0; late < threads; ++late) {
      std::atomic<int64_t> done{0};
      pool->run([&](Lane& lane) {
        // Hangs if the others leave items to it.
        while (lane.index() == late && done < kItems) std::this_thread::yield();
        lane.deal(kItems, [&](int64_t) {
          EXPECT_NE(lane.index(), late);
          ++done;
        });
      });
      EXPECT_EQ(done, kItems);
    }
  }
}

// The first item of each share lasts until all the other items are done: every other item of that
// share has to go to another lane, except when all lanes hold such an item.
TEST(ThreadPool, OthersTakeWhatIsBehindACostlyItem) {
  constexpr int64_t kItems = 60;
  const auto pool = ThreadPool::create(3).value();
  for (const int64_t costly : {0, 20, 40}) {
    std::atomic<int64_t> done{0};
    pool->run([&](Lane& lane) {
      lane.deal(kItems, [&](int64_t item) {
        while (item == costly && done < kItems - 1) std::this_thread::yield();
        ++done;
      });
    });
    EXPECT_EQ(done, kItems);
  }
}

TEST(ThreadPool, ALaneKeepsItsOwnItemsInOrder) {
  const auto pool = ThreadPool::create(4).value();
  std::vector<std::vector<int64_t>> items(4);
  pool->run([&](Lane& lane) {
    std::vector<int64_t>& mine = items[static_cast<size_t>(lane.index())];
    lane.deal(4000, [&](int64_t item) { mine.push_back(item); });
  });
  for (int32_t i = 0; i < 4; ++i) {
    const Lane::Range share = Lane(i, 4).share(4000);
    int64_t next = share.begin;
    for (const int64_t item : items[static_cast<size_t>(i)]) {
      if (item >= share.begin && item < share.end) {
        EXPECT_EQ(item, next++);
      }
    }
  }
}

TEST(ThreadPool, TheCompletionRunsOnceAndBeforeAnybodyLeaves) {
  constexpr int kRounds = 500;
  for (const int32_t threads : {1, 2, 3, 7}) {
    const auto pool = ThreadPool::create(threads).value();
    std::vector<int> arrived(static_cast<size_t>(threads), 0);
    int completions = 0;  // not atomic: one lane writes it while the others wait
    std::vector<int> errors(static_cast<size_t>(threads), 0);
    pool->run([&](Lane& lane) {
      const auto own = static_cast<size_t>(lane.index());
      for (int round = 1; round <= kRounds; ++round) {
        arrived[own] = round;
        lane.sync_then([&] {
          if (std::accumulate(arrived.begin(), arrived.end(), 0) != round * threads) ++errors[own];
          ++completions;
        });
        if (completions != round) ++errors[own];
        lane.sync();
      }
    });
    EXPECT_EQ(completions, kRounds);
    EXPECT_EQ(errors, std::vector<int>(static_cast<size_t>(threads), 0));
  }
}

TEST(SpinBudget, ShrinksWhileLanesLoseTheirCpuAndGrowsBack) {
  SpinBudget spin(Barrier::kLongestSpin);
  for (int i = 0; i < 20; ++i) spin.learn(3 * kNsPerMs);
  EXPECT_LE(spin.current(), 1000);
  EXPECT_GT(spin.current(), 0);
  spin.learn(0);  // did not sleep
  EXPECT_LE(spin.current(), 1000);
  for (int i = 0; i < 20; ++i) spin.learn(10'000);
  EXPECT_EQ(spin.current(), Barrier::kLongestSpin);
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
