// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/thread_pool.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <cstdio>
#include <system_error>

#include "base/check.h"

namespace puna::kernels {
namespace {

std::vector<int> allowed_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cpus;
  if (::sched_getaffinity(0, sizeof set, &set) != 0) return cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  }
  return cpus;
}

// CPUs' worth of time that the cgroup (v2) grants, rounded up, or 0 without a limit.
int32_t cgroup_cpus() {
  std::FILE* file = std::fopen("/sys/fs/cgroup/cpu.max", "re");
  if (file == nullptr) return 0;
  long long quota = 0;
  long long period = 0;
  const int fields = std::fscanf(file, "%lld %lld", &quota, &period);  // "max 100000": no number
  std::fclose(file);
  if (fields != 2 || quota <= 0 || period <= 0) return 0;
  return static_cast<int32_t>(std::min<long long>((quota + period - 1) / period, 1 << 16));
}

}  // namespace

int32_t usable_cpus() {
  const auto allowed = std::max<int32_t>(static_cast<int32_t>(allowed_cpus().size()), 1);
  const int32_t quota = cgroup_cpus();
  return quota > 0 ? std::min(allowed, quota) : allowed;
}

ThreadPool::PoolLane::PoolLane(int32_t index, ThreadPool& pool)
    : Lane(index, pool.size_),
      barrier_(pool.barrier_),
      cursors_(pool.cursors_),
      spin_(pool.longest_spin_) {}

void ThreadPool::PoolLane::do_sync_then(Completion last, void* context) {
  spin_.learn(meet(last, context));
}

// Returns how long this lane slept.
TimeNs ThreadPool::PoolLane::meet(Completion last, void* context) {
  TimeNs slept = 0;
  if (count() > 1) {
    slept = barrier_.arrive_and_wait(spin_.current(), last, context);
  } else if (last != nullptr) {
    last(context);
  }
  // Nobody deals from this set any more, and nobody will before we have arrived once more.
  cursors_[set_][static_cast<size_t>(index())].taken.store(0, std::memory_order_relaxed);
  set_ ^= 1;
  visited_ = 0;
  deal_ended_ = false;
  return slept;
}

// Lanes by distance: this one, the next, the one before, the second next, ...
int32_t ThreadPool::PoolLane::nearest(int32_t rank) const {
  const int32_t distance = (rank + 1) / 2;
  return (index() + (rank % 2 != 0 ? distance : count() - distance)) % count();
}

int64_t ThreadPool::PoolLane::next_dealt(int64_t items) {
  constexpr uint64_t kFromBack = uint64_t{1} << 32;
  CHECK(!deal_ended_);  // a second deal without a sync: its items are marked as taken
  for (; visited_ < count(); ++visited_) {
    const int32_t owner = nearest(visited_);
    const int64_t begin = items * owner / count();
    const int64_t end = items * (owner + 1) / count();
    const auto left = [length = static_cast<uint64_t>(end - begin)](uint64_t taken) {
      return taken / kFromBack + taken % kFromBack < length;
    };
    std::atomic<uint64_t>& cursor = cursors_[set_][static_cast<size_t>(owner)].taken;
    if (!left(cursor.load(std::memory_order_relaxed))) continue;
    const bool own = owner == index();
    const uint64_t taken = cursor.fetch_add(own ? 1 : kFromBack, std::memory_order_relaxed);
    if (!left(taken)) continue;
    return own ? begin + static_cast<int64_t>(taken % kFromBack)
               : end - 1 - static_cast<int64_t>(taken / kFromBack);
  }
  deal_ended_ = true;
  return -1;
}

Result<std::unique_ptr<ThreadPool>> ThreadPool::create(int32_t threads) {
  if (threads < 1 || threads > kMaxThreads) {
    return Error(ErrorCode::kInvalidArgument, "{} threads: the least is 1, the most {}", threads,
                 kMaxThreads);
  }
  std::unique_ptr<ThreadPool> pool(new ThreadPool(threads));
  try {
    pool->start_workers();
  } catch (const std::system_error& error) {
    return Error(ErrorCode::kResourceExhausted, "cannot start thread {} of {}: {}",
                 pool->workers_.size() + 1, threads, error.what());
  }
  return pool;
}

ThreadPool::ThreadPool(int32_t threads)
    : size_(threads),
      longest_spin_(threads <= usable_cpus() ? Barrier::kLongestSpin : Barrier::kCrowdedSpin),
      barrier_(threads),
      cursors_{std::make_unique<Cursor[]>(static_cast<size_t>(threads)),
               std::make_unique<Cursor[]>(static_cast<size_t>(threads))},
      caller_lane_(0, *this) {}

void ThreadPool::start_workers() {
  const std::vector<int> cpus = allowed_cpus();
  const bool pin = static_cast<size_t>(size_) <= cpus.size();
  workers_.reserve(static_cast<size_t>(size_ - 1));
  for (int32_t index = 1; index < size_; ++index) {
    const int cpu = pin ? cpus[static_cast<size_t>(index)] : -1;
    workers_.emplace_back([this, index, cpu] { work(index, cpu); });
  }
  phase_.store(kRunning, std::memory_order_release);
  phase_.notify_all();
}

ThreadPool::~ThreadPool() {
  if (phase_.load(std::memory_order_relaxed) == kRunning) {
    task_ = nullptr;
    caller_lane_.fork();
  } else {
    phase_.store(kAbandoned, std::memory_order_release);
    phase_.notify_all();
  }
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run_task(Task task, void* context) {
  task_ = task;
  context_ = context;
  caller_lane_.fork();
  task(context, caller_lane_);
  caller_lane_.sync();  // join
}

void ThreadPool::work(int32_t index, int cpu) {
  if (cpu >= 0) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(static_cast<size_t>(cpu), &set);
    // Refused (a container may): the worker floats, which is only slower.
    (void)::pthread_setaffinity_np(::pthread_self(), sizeof set, &set);
  }
  phase_.wait(kStarting, std::memory_order_acquire);
  if (phase_.load(std::memory_order_acquire) == kAbandoned) return;
  PoolLane lane(index, *this);
  for (;;) {
    lane.fork();
    if (task_ == nullptr) return;
    task_(context_, lane);
    lane.sync();  // join
  }
}

}  // namespace puna::kernels
