// SPDX-License-Identifier: Apache-2.0
// What runs in the next step, and who holds which KV block. Owned by the engine, engine thread
// only.
//
//   plan()    reads only: which sequences start, and how many tokens of each are computed
//   commit()  starts them, takes the blocks, fills the Batch; can't fail, as plan() counted
//   advance() after the backend ran: the computed positions are there, full blocks can be shared
//
// Admitted means finished: a sequence starts only when blocks for prompt + max_tokens can be had on
// top of what the running ones may still take (`promised`), so promised <= available always holds.
// Order: decode rows, then prompts being computed, then paused sequences (oldest first), then
// waiting ones, first come first served. A waiting choice of a call steps aside while another
// choice of that call computes the prompt, so that they share its blocks.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/batch.h"
#include "engine/sequence.h"
#include "kv/block_pool.h"
#include "kv/prefix_cache.h"

namespace puna::engine {

struct SchedulerConfig {
  int32_t num_blocks = 0;
  int32_t max_num_seqs = 0;
  int32_t max_batch_tokens = 0;
  int32_t prefill_chunk_tokens = 0;
  int32_t max_waiting = 0;
  bool prefix_cache = true;
  uint64_t model_digest = 0;
};

struct StepPlan {
  struct Row {
    Sequence* sequence = nullptr;
    int32_t num_tokens = 0;
    int32_t cached_blocks = -1;  // -1: running already, else it starts with so many found blocks
  };
  std::vector<Row> rows;
  int32_t num_tokens = 0;
};

class Scheduler {
 public:
  using Queue = std::vector<std::unique_ptr<Sequence>>;

  explicit Scheduler(const SchedulerConfig& config);

  void enqueue(std::unique_ptr<Sequence> sequence);
  void plan(StepPlan& plan) const;
  // Facts of sequences that start are stamped with `now_ns`.
  void commit(const StepPlan& plan, TimeNs now_ns, Batch& batch);
  void advance(Sequence& sequence, int32_t num_tokens);

  // Takes a sequence out, whatever its state, and gives its blocks back.
  std::unique_ptr<Sequence> remove(Sequence& sequence);
  // Gives the youngest running sequence's blocks back and pauses it. False when none runs.
  bool pause_youngest();
  // Uses at most `num_blocks` from now on; pauses sequences until that holds.
  void set_pool_limit(int32_t num_blocks);

  const Queue& running() const { return running_; }
  const Queue& paused() const { return paused_; }
  const Queue& waiting() const { return waiting_; }
  const kv::BlockPool& pool() const { return pool_; }
  // Blocks that running sequences may still take.
  int32_t promised() const { return promised_; }
  uint64_t pauses() const { return pauses_; }
  // CHECKs every invariant of sequences and blocks.
  void check() const;

 private:
  int32_t chunk(const Sequence& sequence, int32_t computed, int32_t budget) const;
  bool plan_start(Sequence& sequence, int32_t& blocks_left, StepPlan& plan) const;
  bool waits_for_sibling(const Sequence& sequence, const StepPlan& plan) const;
  void start(Sequence& sequence, int32_t cached_blocks, TimeNs now_ns);
  void give_back_blocks(Sequence& sequence);
  static std::unique_ptr<Sequence> take_out(Queue& queue, const Sequence& sequence);

  const SchedulerConfig config_;
  const size_t max_running_;
  kv::BlockPool pool_;
  kv::PrefixCache cache_;
  Queue running_;  // in the order they started
  Queue paused_;   // by ticket
  Queue waiting_;  // by arrival
  std::vector<int32_t> free_slots_;
  int32_t promised_ = 0;
  uint64_t pauses_ = 0;
};

}  // namespace puna::engine
