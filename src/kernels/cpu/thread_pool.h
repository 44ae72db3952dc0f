// SPDX-License-Identifier: Apache-2.0
// The workers that run a step. The thread that calls run() is lane 0; the others sleep between
// steps. One fork and one join per step, and a barrier between ops. Not for concurrent callers.
//
//   ASSIGN_OR_RETURN(std::unique_ptr<ThreadPool> pool, ThreadPool::create(4));
//   pool->run([&](Lane& lane) { llama.forward(lane, step); });
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

#include "kernels/ops.h"

namespace puna::kernels {

// CPUs that this process may use: its affinity mask, cut to the cgroup's quota.
int32_t usable_cpus();

// A barrier for a fixed number of threads. Each arrival flips the sense when it is the last; the
// others spin shortly, for steps pass barriers every few microseconds, and then sleep in the
// kernel, so that more threads than cores only cost context switches.
class Barrier {
 public:
  // `spin`: pauses before sleeping.
  Barrier(int32_t threads, int32_t spin) : threads_(threads), spin_(spin) {}
  void arrive_and_wait();

 private:
  const int32_t threads_;
  const int32_t spin_;
  alignas(64) std::atomic<int32_t> arrived_{0};
  alignas(64) std::atomic<uint32_t> sense_{0};
  alignas(64) std::atomic<int32_t> sleepers_{0};
};

class ThreadPool {
 public:
  // `threads` in [1, kMaxThreads], lane 0 included. Workers are pinned when every lane can have a
  // CPU of its own. Errors: kInvalidArgument out of the range, kResourceExhausted when the system
  // refuses.
  static Result<std::unique_ptr<ThreadPool>> create(int32_t threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  static constexpr int32_t kMaxThreads = 1024;
  int32_t size() const { return size_; }

  // Runs body(lane) on every lane; returns when all have. Allocates nothing.
  template <typename Body>
  void run(Body&& body) {
    using Plain = std::remove_reference_t<Body>;
    run_task([](void* context, Lane& lane) { (*static_cast<Plain*>(context))(lane); },
             const_cast<std::remove_const_t<Plain>*>(&body));
  }

 private:
  using Task = void (*)(void* context, Lane& lane);
  class PoolLane final : public Lane {
   public:
    PoolLane(int32_t index, int32_t count, Barrier& barrier)
        : Lane(index, count), barrier_(barrier) {}
    void sync() override { barrier_.arrive_and_wait(); }

   private:
    Barrier& barrier_;
  };

  explicit ThreadPool(int32_t threads);
  void start_workers();
  void run_task(Task task, void* context);
  void work(int32_t index, int cpu);

  const int32_t size_;
  Barrier barrier_;
  // Written by lane 0 before it enters the fork barrier, read by workers after they left it.
  Task task_ = nullptr;  // null: the pool ends
  void* context_ = nullptr;
  // Workers begin when all of them exist: kStarting -> kRunning, or kAbandoned when one can't be
  // made.
  enum Phase : int32_t { kStarting, kRunning, kAbandoned };
  std::atomic<int32_t> phase_{kStarting};
  std::vector<std::thread> workers_;
};

}  // namespace puna::kernels
