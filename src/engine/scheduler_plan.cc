// SPDX-License-Identifier: Apache-2.0
// The part of the scheduler that decides and changes nothing: a pure function of the sequences, the
// free blocks, the tenants' counters and the latency model.
#include <algorithm>
#include <limits>

#include "base/check.h"
#include "engine/planted_bug.h"
#include "engine/scheduler.h"

namespace puna::engine {

using kv::kBlockTokens;

namespace {

constexpr double kNoTarget = std::numeric_limits<double>::infinity();

// What it had is still on its way from the host.
bool is_away(const Sequence& sequence) {
  return sequence.returning() && !commits(PlantedBug::kEarlyReturn);
}

constexpr RequestClass class_at(size_t index) { return static_cast<RequestClass>(index); }

}  // namespace

int32_t chunk_of_full_step(std::span<const int32_t> full_steps, int32_t before, int32_t chunk) {
  const auto above = std::upper_bound(full_steps.begin(), full_steps.end(), before + chunk);
  return above == full_steps.begin() ? chunk : std::max(0, *(above - 1) - before);
}

void Scheduler::plan(StepPlan& plan, const StepTimes& times) const {
  plan.rows.clear();
  plan.returns.clear();
  plan.num_tokens = 0;
  plan.shape = {};
  plan.chunk_cut = false;
  plan.blocked_class = kNumClasses;
  plan.charged.assign(fair_share_.tenants() * kNumClasses, 0.0);
  plan.started = {};
  plan.passed_over = {};
  plan.reserved = {};
  plan.blocks_left = pool_.available() - promised_;
  plan_decodes(plan);
  const double target_s = config_.chunk_sizing && times.ready ? tightest_target_s(plan) : kNoTarget;
  plan_prompts(target_s, times, plan);
  plan_starts(target_s, times, plan);
}

void Scheduler::plan_decodes(StepPlan& plan) const {
  for (const auto& sequence : running_) {
    if (sequence->left() != 1 || is_away(*sequence)) continue;
    plan.rows.push_back({.sequence = sequence.get(), .num_tokens = 1});
    plan.shape.add_decode(sequence->computed);
    ++plan.num_tokens;
  }
}

double Scheduler::tightest_target_s(const StepPlan& plan) const {
  TimeNs tightest_ns = std::numeric_limits<TimeNs>::max();
  for (const StepPlan::Row& row : plan.rows) {
    const TimeNs target_ns = row.sequence->tpot_target_ns;
    if (target_ns > 0) tightest_ns = std::min(tightest_ns, target_ns);
  }
  if (tightest_ns == std::numeric_limits<TimeNs>::max()) return kNoTarget;
  return static_cast<double>(tightest_ns) / static_cast<double>(kNsPerSecond);
}

// One chunk of a prompt, running or starting. False when the step has no room for any of it.
bool Scheduler::plan_prompt(Sequence& sequence, int32_t first_position, int32_t cached_blocks,
                            double target_s, const StepTimes& times, StepPlan& plan) const {
  const int32_t whole = std::min({sequence.known() - first_position, config_.prefill_chunk_tokens,
                                  config_.max_batch_tokens - plan.num_tokens});
  if (whole <= 0) return false;
  int32_t chunk = whole;
  if (target_s < kNoTarget) {
    chunk = times.prompt_tokens_within(plan.shape, first_position, whole, target_s);
    if (chunk < whole) chunk = chunk_of_full_step(config_.full_steps, plan.num_tokens, chunk);
    if (plan.shape.prefill_tokens == 0)
      chunk = std::max(chunk, std::min(whole, kLeastPromptTokens));
    if (chunk < whole) plan.chunk_cut = true;
    if (chunk == 0) return false;
  }
  plan.rows.push_back({.sequence = &sequence, .num_tokens = chunk, .cached_blocks = cached_blocks});
  plan.num_tokens += chunk;
  plan.shape.add_prefill(first_position, chunk);
  return true;
}

void Scheduler::plan_prompts(double target_s, const StepTimes& times, StepPlan& plan) const {
  const bool oldest_first = commits_ % kStepsPerOldestFirst == 0;
  for (size_t rank = 0; rank < (oldest_first ? 1 : size_t{kNumClasses}); ++rank) {
    for (const auto& sequence : running_) {
      if (sequence->left() <= 1 || is_away(*sequence)) continue;
      if (!oldest_first && index_of(sequence->request_class) != rank) continue;
      plan_prompt(*sequence, sequence->computed, -1, target_s, times, plan);
    }
  }
}

// Found blocks that nobody holds leave the pool like taken ones, but cost no computing. Two
// sequences that start together and find the same such block both count it: too careful by one
// step, never wrong.
void Scheduler::plan_starts(double target_s, const StepTimes& times, StepPlan& plan) const {
  bool by_turn = false;
  size_t starting = 0;
  while (Sequence* sequence = next_start(plan, by_turn)) {
    if (plan.num_tokens >= config_.max_batch_tokens) return;
    kv::PrefixCache::Prefix found;
    if (config_.prefix_cache) {
      found = cache_.probe(sequence->cache_salt, sequence->tokens, sequence->shareable_blocks());
    }
    const int32_t cost = sequence->reserved_blocks - found.blocks + found.unheld;
    if (running_.size() + starting == max_running_ || cost > plan.blocks_left) {
      for (size_t rank = kNumClasses; rank-- > 0;) {
        if (next_of(class_at(rank), plan) != nullptr) plan.blocked_class = static_cast<int>(rank);
      }
      return;
    }
    const int32_t first_position = found.blocks * kBlockTokens;
    const bool returns = sequence->saved > first_position;
    if (returns) {
      plan.returns.push_back({.sequence = sequence, .cached_blocks = found.blocks});
    } else if (!plan_prompt(*sequence, first_position, found.blocks, target_s, times, plan)) {
      return;
    }
    (returns ? plan.returns : plan.rows).back().by_turn = by_turn;
    plan.blocks_left -= cost;
    ++starting;
    const double charge = sequence->output_tokens() > 0
                              ? 0.0
                              : kPromptTokenCost * (sequence->prompt_tokens - first_position);
    note_start(*sequence, fair_share_.charged(sequence->tenant, charge), plan);
  }
}

void Scheduler::note_start(const Sequence& sequence, double charge, StepPlan& plan) const {
  plan.charged[seat(sequence)] += charge;
  const size_t rank = index_of(sequence.request_class);
  ++plan.started[rank];
  plan.reserved[rank] += sequence.reserved_blocks;
  for (size_t other = 0; other < kNumClasses; ++other) {
    if (other != rank) ++plan.passed_over[other];
  }
  // Less than zero: it had its turn, whatever went by before.
  plan.passed_over[rank] = std::numeric_limits<int32_t>::min() / 2;
}

// By class; but a lower one that was passed over often enough comes first.
Sequence* Scheduler::next_start(const StepPlan& plan, bool& by_turn) const {
  Sequence* first = nullptr;
  for (size_t rank = 0; rank < kNumClasses; ++rank) {
    if (fair_share_.waiting(class_at(rank)) <= plan.started[rank]) continue;
    Sequence* next = next_of(class_at(rank), plan);
    if (next == nullptr || !within_class_share(*next, plan)) continue;
    if (first == nullptr) {
      first = next;
      by_turn = false;
    } else if (fair_share_.passed_over(class_at(rank)) + plan.passed_over[rank] >=
               kStartsPerTurn - 1) {
      first = next;
      by_turn = true;
    }
  }
  return first;
}

Sequence* Scheduler::next_of(RequestClass request_class, const StepPlan& plan) const {
  for (const auto& sequence : paused_) {
    if (sequence->request_class == request_class && !starts_in(plan, *sequence)) {
      return sequence.get();
    }
  }
  Sequence* best = nullptr;
  for (const auto& sequence : waiting_) {
    if (sequence->request_class != request_class || starts_in(plan, *sequence)) continue;
    if (best != nullptr && !passes(*sequence, *best, plan)) continue;
    if (!waits_for_sibling(*sequence, plan)) best = sequence.get();
  }
  return best;
}

bool Scheduler::passes(const Sequence& sequence, const Sequence& best, const StepPlan& plan) const {
  const auto served = [&](const Sequence& of) {
    return fair_share_.counter(of.request_class, of.tenant) + plan.charged[seat(of)];
  };
  if (commits(PlantedBug::kUnfairPick)) return served(sequence) > served(best);
  return served(sequence) < served(best);
}

bool Scheduler::within_class_share(const Sequence& sequence, const StepPlan& plan) const {
  const size_t rank = index_of(sequence.request_class);
  if (class_running_[rank] + plan.started[rank] == 0) return true;  // one always may
  const double share = config_.class_kv_shares[rank] * pool_.total();
  return class_reserved_[rank] + plan.reserved[rank] + sequence.reserved_blocks <= share;
}

bool Scheduler::starts_in(const StepPlan& plan, const Sequence& sequence) {
  for (const StepPlan::Row& row : plan.returns) {
    if (row.sequence == &sequence) return true;
  }
  for (auto row = plan.rows.rbegin(); row != plan.rows.rend(); ++row) {  // starts come last
    if (row->cached_blocks < 0) return false;
    if (row->sequence == &sequence) return true;
  }
  return false;
}

bool Scheduler::waits_for_sibling(const Sequence& sequence, const StepPlan& plan) const {
  const int32_t shareable = sequence.shareable_blocks() * kBlockTokens;
  if (!config_.prefix_cache || shareable == 0) return false;
  const auto is_ahead = [&](const Sequence& other, int32_t computed) {
    return other.group == sequence.group && computed < shareable;
  };
  return std::any_of(running_.begin(), running_.end(),
                     [&](const auto& other) { return is_ahead(*other, other->computed); }) ||
         std::any_of(
             plan.returns.begin(), plan.returns.end(),
             [&](const auto& row) { return is_ahead(*row.sequence, row.sequence->saved); }) ||
         std::any_of(plan.rows.begin(), plan.rows.end(), [&](const StepPlan::Row& row) {
           return row.cached_blocks >= 0 &&
                  is_ahead(*row.sequence, row.cached_blocks * kBlockTokens);
         });
}

}  // namespace puna::engine
