// SPDX-License-Identifier: Apache-2.0
#include "engine/scheduler.h"

#include <algorithm>

#include "base/check.h"
#include "engine/planted_bug.h"

namespace puna::engine {

using kv::BlockId;
using kv::kBlockTokens;
using kv::kNoBlock;

Scheduler::Scheduler(const SchedulerConfig& config)
    : config_(config),
      // With no more sequences than batch tokens every decode row fits in every step.
      max_running_(static_cast<size_t>(std::min(config.max_num_seqs, config.max_batch_tokens))),
      pool_(config.num_blocks, static_cast<int32_t>(config.tenant_kv_shares.size())),
      cache_(pool_, config.model_digest),
      host_pool_(config.num_host_blocks),
      fair_share_(config.tenant_weights) {
  CHECK(max_running_ > 0 && config.prefill_chunk_tokens > 0);
  cache_.set_shares(config.tenant_kv_shares);
  running_.reserve(max_running_);
  // A class starts nobody while some of it are paused: at most max_running_ of each.
  paused_.reserve(max_running_ * kNumClasses);
  waiting_.reserve(static_cast<size_t>(config.max_waiting));
  for (auto slot = static_cast<int32_t>(max_running_) - 1; slot >= 0; --slot) {
    free_slots_.push_back(slot);
  }
  saves_.reserve(static_cast<size_t>(config.num_host_blocks));
  restores_.reserve(static_cast<size_t>(config.num_host_blocks));
}

void Scheduler::enqueue(std::unique_ptr<Sequence> sequence) {
  CHECK_LT(waiting_.size(), waiting_.capacity());
  fair_share_.arrive(sequence->request_class, sequence->tenant);
  waiting_.push_back(std::move(sequence));
}

std::unique_ptr<Sequence> Scheduler::take_out(Queue& queue, const Sequence& sequence) {
  const auto place = std::find_if(queue.begin(), queue.end(), [&](const auto& candidate) {
    return candidate.get() == &sequence;
  });
  if (place == queue.end()) return nullptr;
  std::unique_ptr<Sequence> taken = std::move(*place);
  queue.erase(place);
  return taken;
}

void Scheduler::start(Sequence& sequence, const StepPlan::Row& row, TimeNs now_ns) {
  const int32_t cached_blocks = row.cached_blocks;
  RequestFacts& facts = sequence.channel->facts();
  std::unique_ptr<Sequence> owned = take_out(paused_, sequence);
  if (owned != nullptr) {
    fair_share_.resume(sequence.request_class);
    facts.stall_ns += now_ns - sequence.accounted_ns;
    if (sequence.saved <= cached_blocks * kBlockTokens) forget_on_host(sequence);
  } else {
    owned = take_out(waiting_, sequence);
    fair_share_.leave(sequence.request_class, sequence.tenant);
    fair_share_.charge(sequence.request_class, sequence.tenant,
                       kPromptTokenCost * (sequence.prompt_tokens - cached_blocks * kBlockTokens));
    facts.first_scheduled_ns = now_ns;
    facts.cached_prompt_tokens = cached_blocks * kBlockTokens;
    facts.queue_ns = now_ns - facts.submitted_ns;
  }
  fair_share_.start(sequence.request_class, sequence.tenant);
  sequence.accounted_ns = now_ns;
  sequence.by_turn = row.by_turn;
  class_reserved_[index_of(sequence.request_class)] += sequence.reserved_blocks;
  ++class_running_[index_of(sequence.request_class)];
  CHECK(owned != nullptr && !free_slots_.empty() && sequence.block_table.empty());
  sequence.slot = free_slots_.back();
  free_slots_.pop_back();
  sequence.block_table.resize(static_cast<size_t>(cached_blocks), kNoBlock);
  if (cached_blocks > 0) {
    CHECK_EQ(cache_.find(sequence.cache_salt, sequence.tokens, sequence.block_table),
             cached_blocks);
  }
  for (BlockId block : sequence.block_table) pool_.retain(block);
  sequence.computed = cached_blocks * kBlockTokens;
  sequence.shared_blocks = cached_blocks;
  promised_ += sequence.reserved_blocks - cached_blocks;
  running_.push_back(std::move(owned));
}

void Scheduler::commit(const StepPlan& plan, TimeNs now_ns, Batch& batch) {
  // Found blocks first, for all: taking a block may evict one that is found but not held yet.
  for (const StepPlan::Row& row : plan.returns) start(*row.sequence, row, now_ns);
  for (const StepPlan::Row& row : plan.rows) {
    if (row.cached_blocks >= 0) start(*row.sequence, row, now_ns);
  }
  restores_.clear();
  for (const StepPlan::Row& row : plan.returns) bring_back(*row.sequence);
  ++commits_;
  batch.items.clear();
  batch.num_tokens = plan.num_tokens;
  batch.num_samples = 0;
  for (const StepPlan::Row& row : plan.rows) {
    Sequence& sequence = *row.sequence;
    const int32_t end = sequence.computed + row.num_tokens;
    const auto blocks = static_cast<size_t>(kv::blocks_for_tokens(end));
    CHECK_LE(blocks, static_cast<size_t>(sequence.reserved_blocks));
    while (sequence.block_table.size() < blocks) {
      sequence.block_table.push_back(cache_.take());
      --promised_;
    }
    const std::span<const TokenId> history =
        std::span(sequence.tokens).first(static_cast<size_t>(end));
    const bool sample = end == sequence.known();
    batch.items.push_back({.slot = sequence.slot,
                           .first_position = sequence.computed,
                           .num_tokens = row.num_tokens,
                           .tokens = history.last(static_cast<size_t>(row.num_tokens)),
                           .block_table = sequence.block_table,
                           .sample = sample,
                           .history = history,
                           .sampling = sample ? &sequence.sampling : nullptr,
                           .prompt_tokens = sequence.prompt_tokens,
                           .banned = sequence.banned()});
    batch.num_samples += sample ? 1 : 0;
  }
}

void Scheduler::advance(Sequence& sequence, int32_t num_tokens) {
  sequence.computed += num_tokens;
  if (!config_.prefix_cache) return;
  while ((sequence.shared_blocks + 1) * kBlockTokens <= sequence.computed) {
    const auto index = static_cast<size_t>(sequence.shared_blocks++);
    const BlockId parent = index == 0 ? kNoBlock : sequence.block_table[index - 1];
    sequence.block_table[index] = cache_.insert(
        sequence.cache_salt, parent,
        std::span(sequence.tokens).subspan(index * kBlockTokens, static_cast<size_t>(kBlockTokens)),
        sequence.block_table[index], sequence.tenant);
  }
}

// Growers in the order of their starts; who is paused for one of them is the last by class and age,
// be it the grower itself. So the first by class and age always goes on, and all end.
void Scheduler::grow(TimeNs now_ns) {
  for (size_t i = 0; i < running_.size();) {
    Sequence& sequence = *running_[i];
    if (!sequence.outgrows()) {
      ++i;
    } else if (pool_.available() > promised_) {
      CHECK_LT(static_cast<size_t>(sequence.reserved_blocks), sequence.block_table.capacity());
      ++sequence.reserved_blocks;
      ++class_reserved_[index_of(sequence.request_class)];
      ++promised_;
    } else {
      pause(last_running(), now_ns);
      i = 0;
    }
  }
}

void Scheduler::give_back_blocks(Sequence& sequence) {
  promised_ -= sequence.reserved_blocks - static_cast<int32_t>(sequence.block_table.size());
  class_reserved_[index_of(sequence.request_class)] -= sequence.reserved_blocks;
  --class_running_[index_of(sequence.request_class)];
  if (!sequence.block_table.empty()) {
    if (commits(PlantedBug::kDoubleFree)) pool_.release(sequence.block_table.back());
    if (commits(PlantedBug::kLeakedBlock)) sequence.block_table.pop_back();
  }
  // Last block first: the cache evicts in this order, leaves before what they hang on.
  for (; !sequence.block_table.empty(); sequence.block_table.pop_back()) {
    pool_.release(sequence.block_table.back());
  }
  free_slots_.push_back(sequence.slot);
  sequence.slot = -1;
  sequence.computed = 0;
  sequence.shared_blocks = 0;
}

std::unique_ptr<Sequence> Scheduler::remove(Sequence& sequence) {
  forget_on_host(sequence);
  if (sequence.slot >= 0) {
    give_back_blocks(sequence);
    return take_out(running_, sequence);
  }
  std::unique_ptr<Sequence> taken = take_out(waiting_, sequence);
  if (taken != nullptr) {
    fair_share_.leave(sequence.request_class, sequence.tenant);
    return taken;
  }
  taken = take_out(paused_, sequence);
  if (taken != nullptr) fair_share_.resume(sequence.request_class);
  return taken;
}

}  // namespace puna::engine
