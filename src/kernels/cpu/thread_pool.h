// SPDX-License-Identifier: Apache-2.0
// The workers that run a step. The thread that calls run() is lane 0; the others sleep between
// steps. One fork and one join per step, and a barrier between ops. Not for concurrent callers.
//
//   ASSIGN_OR_RETURN(std::unique_ptr<ThreadPool> pool, ThreadPool::create(4));
//   pool->run([&](Lane& lane) { llama.forward(lane, step); });
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

#include "kernels/cpu/barrier.h"
#include "kernels/ops.h"

namespace puna::kernels {

// CPUs that this process may use: its affinity mask, cut to the cgroup's quota.
int32_t usable_cpus();

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
  // What has been taken of one lane's share in a deal: the lower half counts items from the front
  // (by the lane itself), the upper half items from the back (by others), so that one addition
  // claims an item and a lane's own items stay consecutive.
  struct alignas(128) Cursor {
    std::atomic<uint64_t> taken{0};
  };
  // Two sets in turn: one for the deal before the next sync, one that is being cleared for the deal
  // after it. Each lane clears its own.
  using CursorSets = std::array<std::unique_ptr<Cursor[]>, 2>;

  class PoolLane final : public Lane {
   public:
    PoolLane(int32_t index, ThreadPool& pool);
    void sync() override { do_sync_then(nullptr, nullptr); }
    // A sync that may take as long as nobody calls run(), which says nothing about the lanes.
    void fork() { (void)meet(nullptr, nullptr); }

   private:
    void do_sync_then(Completion last, void* context) override;
    int64_t next_dealt(int64_t items) override;
    TimeNs meet(Completion last, void* context);
    int32_t nearest(int32_t rank) const;

    Barrier& barrier_;
    CursorSets& cursors_;
    SpinBudget spin_;
    size_t set_ = 0;
    int32_t visited_ = 0;  // lanes whose share of the deal is taken, nearest first
    bool deal_ended_ = false;
  };

  explicit ThreadPool(int32_t threads);
  void start_workers();
  void run_task(Task task, void* context);
  void work(int32_t index, int cpu);

  const int32_t size_;
  const TimeNs longest_spin_;
  Barrier barrier_;
  CursorSets cursors_;
  PoolLane caller_lane_;
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
