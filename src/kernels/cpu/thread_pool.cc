// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/thread_pool.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <cstdio>
#include <system_error>

namespace puna::kernels {
namespace {

// About 40 microseconds of pauses: longer than any wait inside a step whose lanes all run. With
// fewer CPUs than lanes the lane we wait for may not be running at all, so the CPU is given away
// early.
constexpr int32_t kSpin = 2000;
constexpr int32_t kSpinCrowded = 32;

void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

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

void Barrier::arrive_and_wait() {
  const uint32_t sense = sense_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads_) {
    arrived_.store(0, std::memory_order_relaxed);
    // Sequentially consistent with sleepers_: either we see the sleeper, or it sees the new sense.
    sense_.store(sense + 1, std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_seq_cst) > 0) sense_.notify_all();
    return;
  }
  for (int32_t i = 0; i < spin_; ++i) {
    if (sense_.load(std::memory_order_acquire) != sense) return;
    pause_cpu();
  }
  sleepers_.fetch_add(1, std::memory_order_seq_cst);
  while (sense_.load(std::memory_order_seq_cst) == sense)
    sense_.wait(sense, std::memory_order_seq_cst);
  sleepers_.fetch_sub(1, std::memory_order_relaxed);
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
    : size_(threads), barrier_(threads, threads <= usable_cpus() ? kSpin : kSpinCrowded) {}

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
    if (size_ > 1) barrier_.arrive_and_wait();
  } else {
    phase_.store(kAbandoned, std::memory_order_release);
    phase_.notify_all();
  }
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run_task(Task task, void* context) {
  PoolLane lane(0, size_, barrier_);
  task_ = task;
  context_ = context;
  if (size_ > 1) barrier_.arrive_and_wait();  // fork
  task(context, lane);
  if (size_ > 1) barrier_.arrive_and_wait();  // join
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
  PoolLane lane(index, size_, barrier_);
  for (;;) {
    barrier_.arrive_and_wait();  // fork
    if (task_ == nullptr) return;
    task_(context_, lane);
    barrier_.arrive_and_wait();  // join
  }
}

}  // namespace puna::kernels
