// SPDX-License-Identifier: Apache-2.0
// What runs in the next step, and who holds which KV block. Owned by the engine, engine thread
// only.
//
//   grow()    who outgrows what it reserved takes a free block, or somebody is paused for it
//   plan()    reads only: which sequences start, and how many tokens of each are computed
//   commit()  starts them, takes the blocks, fills the Batch; can't fail, as plan() counted
//   advance() after the backend ran: the computed positions are there, full blocks can be shared
//
// A paused sequence keeps its place in line and loses its blocks. Where the backend has host memory
// with room for all of them they are copied there (saves()), and copied back when it starts again
// (restores()): it holds a slot and blocks then, and is in no step before arrive() has seen the
// last copy. Otherwise, and for what the prefix cache still has, nothing is copied: it is computed
// again.
//
// Admitted means finished: a sequence starts only when the blocks it reserves can be had on top of
// what the running ones may still take (`promised`), so promised <= available always holds.
//
// A step holds every decode row, then chunks of running prompts, then of starting ones, as many
// tokens as fit the tightest tpot target among the decode rows by the latency model; a first prompt
// gets kLeastPromptTokens whatever the model says. Who starts: by class, inside a class paused ones
// (oldest first), then the tenant served least (fair_share.h). Nobody is passed by who needs fewer
// blocks. A choice of a call steps aside while another choice of that call computes the prompt, so
// that they share its blocks.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/backend.h"
#include "engine/batch.h"
#include "engine/fair_share.h"
#include "engine/latency_model.h"
#include "engine/sequence.h"
#include "kv/block_pool.h"
#include "kv/prefix_cache.h"

namespace puna::engine {

inline constexpr int32_t kLeastPromptTokens = 16;
// What of `chunk` fills a step that has `before` tokens to a number that no padding is computed
// for: BackendLimits::full_steps.
int32_t chunk_of_full_step(std::span<const int32_t> full_steps, int32_t before, int32_t chunk);
// Prompts are computed in the order of their classes, but in one step of so many in that of their
// starts, so that none starves.
inline constexpr uint64_t kStepsPerOldestFirst = 8;

struct SchedulerConfig {
  int32_t num_blocks = 0;
  int32_t num_host_blocks = 0;  // 0: paused sequences are computed again
  int32_t max_num_seqs = 0;
  int32_t max_batch_tokens = 0;
  int32_t prefill_chunk_tokens = 0;
  int32_t max_waiting = 0;
  std::vector<int32_t> full_steps{};  // BackendLimits::full_steps: where a chunk that is cut ends
  bool prefix_cache = true;
  bool chunk_sizing = true;
  uint64_t model_digest = 0;
  std::array<double, kNumClasses> class_kv_shares = {1.0, 1.0, 1.0};
  std::vector<double> tenant_weights = {1.0};
  std::vector<double> tenant_kv_shares = {1.0};
};

struct StepPlan {
  struct Row {
    Sequence* sequence = nullptr;
    int32_t num_tokens = 0;
    int32_t cached_blocks = -1;  // -1: running already, else it starts with so many found blocks
    bool by_turn = false;        // starts ahead of a higher class that waits
  };
  std::vector<Row> rows;
  std::vector<Row> returns;  // start with what the host has, and compute nothing yet
  int32_t num_tokens = 0;
  StepShape shape;
  bool chunk_cut = false;  // a tpot target made a prompt's chunk smaller
  // The highest class of which somebody waits for a slot or for blocks; kNumClasses: none.
  int blocked_class = kNumClasses;

  // Working memory: what this plan's own starts change.
  std::vector<double> charged;  // [classes, tenants]
  std::array<int32_t, kNumClasses> started = {};
  std::array<int32_t, kNumClasses> passed_over = {};
  std::array<int32_t, kNumClasses> reserved = {};
  int32_t blocks_left = 0;
};

class Scheduler {
 public:
  using Queue = std::vector<std::unique_ptr<Sequence>>;

  explicit Scheduler(const SchedulerConfig& config);

  void enqueue(std::unique_ptr<Sequence> sequence);
  void grow(TimeNs now_ns);
  void plan(StepPlan& plan, const StepTimes& times = {}) const;
  // Facts of sequences that start are stamped with `now_ns`.
  void commit(const StepPlan& plan, TimeNs now_ns, Batch& batch);
  void advance(Sequence& sequence, int32_t num_tokens);

  // Copies for the backend: to the host, of those paused since clear_saves(), in the order in which
  // their blocks will be taken; and back, of those that commit() lets return. The latter go on with
  // the copy of this number.
  std::span<const KvCopy> saves() const { return saves_; }
  void clear_saves() { saves_.clear(); }
  std::span<const KvCopy> restores() const { return restores_; }
  void expect(const StepPlan& plan, uint64_t copy);
  // So many copies are done: who waited for one of them can go on.
  void arrive(uint64_t copies);
  // The copy that somebody waits for, the first one; 0: nobody waits.
  uint64_t next_arrival() const;

  // Takes a sequence out, whatever its state, and gives its blocks back.
  std::unique_ptr<Sequence> remove(Sequence& sequence);
  // Gives the blocks of the youngest running sequence of the lowest class back and pauses it.
  // False when none runs.
  bool pause_last(TimeNs now_ns);
  // The same for background sequences only, but those that run by turn.
  bool pause_background(TimeNs now_ns);
  // Uses at most `num_blocks` from now on; pauses sequences until that holds.
  void set_pool_limit(int32_t num_blocks, TimeNs now_ns);

  const Queue& running() const { return running_; }
  const Queue& paused() const { return paused_; }
  const Queue& waiting() const { return waiting_; }
  const kv::BlockPool& pool() const { return pool_; }
  const kv::BlockPool& host_pool() const { return host_pool_; }
  const FairShare& fair_share() const { return fair_share_; }
  FairShare& fair_share() { return fair_share_; }
  // Blocks that running sequences may still take.
  int32_t promised() const { return promised_; }
  uint64_t pauses() const { return pauses_; }
  uint64_t evictions() const { return cache_.evictions(); }
  // CHECKs every invariant of sequences and blocks.
  void check() const;

 private:
  bool plan_prompt(Sequence& sequence, int32_t first_position, int32_t cached_blocks,
                   double target_s, const StepTimes& times, StepPlan& plan) const;
  void plan_decodes(StepPlan& plan) const;
  void plan_prompts(double target_s, const StepTimes& times, StepPlan& plan) const;
  void plan_starts(double target_s, const StepTimes& times, StepPlan& plan) const;
  double tightest_target_s(const StepPlan& plan) const;
  Sequence* next_of(RequestClass request_class, const StepPlan& plan) const;
  Sequence* next_start(const StepPlan& plan, bool& by_turn) const;
  bool within_class_share(const Sequence& sequence, const StepPlan& plan) const;
  bool waits_for_sibling(const Sequence& sequence, const StepPlan& plan) const;
  bool passes(const Sequence& sequence, const Sequence& best, const StepPlan& plan) const;
  static bool starts_in(const StepPlan& plan, const Sequence& sequence);
  void note_start(const Sequence& sequence, double charge, StepPlan& plan) const;
  size_t seat(const Sequence& sequence) const {
    return index_of(sequence.request_class) * fair_share_.tenants() +
           static_cast<size_t>(sequence.tenant);
  }

  void start(Sequence& sequence, const StepPlan::Row& row, TimeNs now_ns);
  void pause(Queue::iterator sequence, TimeNs now_ns);
  Queue::iterator last_running();
  void give_back_blocks(Sequence& sequence);
  void keep_on_host(Sequence& sequence);
  void bring_back(Sequence& sequence);
  void forget_on_host(Sequence& sequence);
  static std::unique_ptr<Sequence> take_out(Queue& queue, const Sequence& sequence);
  void check_running() const;
  void check_host() const;

  const SchedulerConfig config_;
  const size_t max_running_;
  kv::BlockPool pool_;
  kv::PrefixCache cache_;
  kv::BlockPool host_pool_;  // places in host memory
  FairShare fair_share_;
  Queue running_;  // in the order they started
  Queue paused_;   // by class, then ticket
  Queue waiting_;  // by arrival
  std::vector<int32_t> free_slots_;
  int32_t promised_ = 0;
  std::array<int32_t, kNumClasses> class_reserved_ = {};  // blocks, by running sequences
  std::array<int32_t, kNumClasses> class_running_ = {};
  uint64_t pauses_ = 0;
  uint64_t commits_ = 0;
  std::vector<KvCopy> saves_;
  std::vector<KvCopy> restores_;
};

}  // namespace puna::engine
