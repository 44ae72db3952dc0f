// SPDX-License-Identifier: Apache-2.0
#include "engine/scheduler.h"

#include <algorithm>

#include "base/check.h"

namespace puna::engine {

using kv::BlockId;
using kv::kBlockTokens;
using kv::kNoBlock;

Scheduler::Scheduler(const SchedulerConfig& config)
    : config_(config),
      // With no more sequences than batch tokens every decode row fits in every step.
      max_running_(static_cast<size_t>(std::min(config.max_num_seqs, config.max_batch_tokens))),
      pool_(config.num_blocks),
      cache_(pool_, config.model_digest) {
  CHECK(max_running_ > 0 && config.prefill_chunk_tokens > 0);
  running_.reserve(max_running_);
  paused_.reserve(max_running_);
  waiting_.reserve(static_cast<size_t>(config.max_waiting));
  for (auto slot = static_cast<int32_t>(max_running_) - 1; slot >= 0; --slot) {
    free_slots_.push_back(slot);
  }
}

void Scheduler::enqueue(std::unique_ptr<Sequence> sequence) {
  CHECK_LT(waiting_.size(), waiting_.capacity());
  waiting_.push_back(std::move(sequence));
}

int32_t Scheduler::chunk(const Sequence& sequence, int32_t computed, int32_t budget) const {
  return std::min({sequence.known() - computed, config_.prefill_chunk_tokens, budget});
}

void Scheduler::plan(StepPlan& plan) const {
  plan.rows.clear();
  plan.num_tokens = 0;
  const auto add = [&](Sequence& sequence, int32_t num_tokens) {
    plan.rows.push_back({.sequence = &sequence, .num_tokens = num_tokens});
    plan.num_tokens += num_tokens;
  };
  for (const auto& sequence : running_) {
    if (sequence->left() == 1) add(*sequence, 1);
  }
  for (const auto& sequence : running_) {
    const int32_t budget = config_.max_batch_tokens - plan.num_tokens;
    if (sequence->left() > 1 && budget > 0) {
      add(*sequence, chunk(*sequence, sequence->computed, budget));
    }
  }
  size_t starting = 0;
  int32_t blocks_left = pool_.available() - promised_;
  const auto may_start = [&] {
    return running_.size() + starting < max_running_ && plan.num_tokens < config_.max_batch_tokens;
  };
  for (const auto& sequence : paused_) {
    if (!may_start() || !plan_start(*sequence, blocks_left, plan)) return;
    ++starting;
  }
  for (const auto& sequence : waiting_) {
    if (!may_start()) return;
    if (waits_for_sibling(*sequence, plan)) continue;
    if (!plan_start(*sequence, blocks_left, plan)) return;
    ++starting;
  }
}

// Found blocks that nobody holds leave the pool like taken ones, but cost no computing. Two
// sequences that start together and find the same such block both count it: too careful by one
// step, never wrong.
bool Scheduler::plan_start(Sequence& sequence, int32_t& blocks_left, StepPlan& plan) const {
  kv::PrefixCache::Prefix found;
  if (config_.prefix_cache) {
    found = cache_.probe(sequence.cache_salt, sequence.tokens, sequence.shareable_blocks());
  }
  const int32_t cost = sequence.reserved_blocks - found.blocks + found.unheld;
  if (cost > blocks_left) return false;
  blocks_left -= cost;
  const int32_t num_tokens =
      chunk(sequence, found.blocks * kBlockTokens, config_.max_batch_tokens - plan.num_tokens);
  plan.rows.push_back(
      {.sequence = &sequence, .num_tokens = num_tokens, .cached_blocks = found.blocks});
  plan.num_tokens += num_tokens;
  return true;
}

bool Scheduler::waits_for_sibling(const Sequence& sequence, const StepPlan& plan) const {
  const int32_t shareable = sequence.shareable_blocks() * kBlockTokens;
  if (!config_.prefix_cache || shareable == 0) return false;
  const auto is_ahead = [&](const Sequence& other, int32_t computed) {
    return other.group == sequence.group && computed < shareable;
  };
  return std::any_of(running_.begin(), running_.end(),
                     [&](const auto& other) { return is_ahead(*other, other->computed); }) ||
         std::any_of(plan.rows.begin(), plan.rows.end(), [&](const StepPlan::Row& row) {
           return row.cached_blocks >= 0 &&
                  is_ahead(*row.sequence, row.cached_blocks * kBlockTokens);
         });
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

void Scheduler::start(Sequence& sequence, int32_t cached_blocks, TimeNs now_ns) {
  std::unique_ptr<Sequence> owned = take_out(paused_, sequence);
  if (owned == nullptr) owned = take_out(waiting_, sequence);
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
  RequestFacts& facts = sequence.channel->facts();
  if (facts.first_scheduled_ns == 0) {
    facts.first_scheduled_ns = now_ns;
    facts.cached_prompt_tokens = sequence.computed;
  }
  running_.push_back(std::move(owned));
}

void Scheduler::commit(const StepPlan& plan, TimeNs now_ns, Batch& batch) {
  // Found blocks first, for all: taking a block may evict one that is found but not held yet.
  for (const StepPlan::Row& row : plan.rows) {
    if (row.cached_blocks >= 0) start(*row.sequence, row.cached_blocks, now_ns);
  }
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
        sequence.block_table[index]);
  }
}

void Scheduler::give_back_blocks(Sequence& sequence) {
  promised_ -= sequence.reserved_blocks - static_cast<int32_t>(sequence.block_table.size());
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
  if (sequence.slot >= 0) {
    give_back_blocks(sequence);
    return take_out(running_, sequence);
  }
  std::unique_ptr<Sequence> taken = take_out(waiting_, sequence);
  return taken != nullptr ? std::move(taken) : take_out(paused_, sequence);
}

bool Scheduler::pause_youngest() {
  const auto youngest =
      std::max_element(running_.begin(), running_.end(),
                       [](const auto& a, const auto& b) { return a->ticket < b->ticket; });
  if (youngest == running_.end()) return false;
  give_back_blocks(**youngest);
  ++(*youngest)->channel->facts().preemptions;
  ++pauses_;
  const auto place = std::find_if(paused_.begin(), paused_.end(), [&](const auto& other) {
    return other->ticket > (*youngest)->ticket;
  });
  paused_.insert(place, std::move(*youngest));
  running_.erase(youngest);
  return true;
}

void Scheduler::set_pool_limit(int32_t num_blocks) {
  const int32_t withheld = pool_.total() - std::clamp(num_blocks, 0, pool_.total());
  while (pool_.withheld() > withheld) pool_.restore();
  while (pool_.withheld() < withheld) {
    if (pool_.available() > promised_) {
      cache_.make_room();
      pool_.withhold();
    } else {
      CHECK(pause_youngest());  // with none running nothing is promised or held
    }
  }
}

void Scheduler::check() const {
  pool_.check();
  cache_.check();
  CHECK_LE(running_.size() + free_slots_.size(), max_running_);
  std::vector<int32_t> references(static_cast<size_t>(pool_.total()));
  int32_t promised = 0;
  for (const auto& sequence : running_) {
    CHECK(sequence->slot >= 0 && sequence->left() > 0);
    CHECK_LE(sequence->block_table.size(), static_cast<size_t>(sequence->reserved_blocks));
    CHECK_GE(static_cast<int32_t>(sequence->block_table.size()) * kBlockTokens, sequence->computed);
    CHECK_EQ(std::count(free_slots_.begin(), free_slots_.end(), sequence->slot), 0);
    promised += sequence->reserved_blocks - static_cast<int32_t>(sequence->block_table.size());
    for (BlockId block : sequence->block_table) ++references[static_cast<size_t>(block)];
  }
  CHECK_EQ(running_.size() + free_slots_.size(), max_running_);
  CHECK_EQ(promised, promised_);
  CHECK_LE(promised_, pool_.available());
  for (BlockId block = 0; block < pool_.total(); ++block) {
    CHECK_EQ(references[static_cast<size_t>(block)], pool_.references(block));
  }
  for (const Queue* queue : {&paused_, &waiting_}) {
    for (const auto& sequence : *queue) {
      CHECK(sequence->slot == -1 && sequence->block_table.empty() && sequence->computed == 0);
    }
  }
}

}  // namespace puna::engine
