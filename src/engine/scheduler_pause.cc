// SPDX-License-Identifier: Apache-2.0
// Who is paused, where what it had is kept meanwhile, and how it comes back.
#include <algorithm>
#include <limits>

#include "base/check.h"
#include "engine/planted_bug.h"
#include "engine/scheduler.h"

namespace puna::engine {

using kv::BlockId;

namespace {

// The order in which sequences give way: lower classes and younger ones are later.
bool is_before(const std::unique_ptr<Sequence>& a, const std::unique_ptr<Sequence>& b) {
  if (a->request_class != b->request_class) return a->request_class < b->request_class;
  return a->ticket < b->ticket;
}

// Until the backend has numbered its copies.
constexpr uint64_t kNotAskedFor = std::numeric_limits<uint64_t>::max();

}  // namespace

Scheduler::Queue::iterator Scheduler::last_running() {
  return std::max_element(running_.begin(), running_.end(), is_before);
}

bool Scheduler::pause_last(TimeNs now_ns) {
  if (running_.empty()) return false;
  pause(last_running(), now_ns);
  return true;
}

bool Scheduler::pause_background(TimeNs now_ns) {
  auto chosen = running_.end();
  for (auto place = running_.begin(); place != running_.end(); ++place) {
    const Sequence& sequence = **place;
    if (sequence.request_class != RequestClass::kBackground || sequence.by_turn) continue;
    if (chosen == running_.end() || is_before(*chosen, *place)) chosen = place;
  }
  if (chosen == running_.end()) return false;
  pause(chosen, now_ns);
  return true;
}

void Scheduler::pause(Queue::iterator place, TimeNs now_ns) {
  std::unique_ptr<Sequence> sequence = std::move(*place);
  running_.erase(place);
  keep_on_host(*sequence);
  give_back_blocks(*sequence);
  // It may have outgrown what it reserved, and takes blocks for all but its last token at once: it
  // comes back only with room for all that it has and the next.
  if (!commits(PlantedBug::kEarlyResume))
    sequence->reserved_blocks =
        std::max(sequence->reserved_blocks, kv::blocks_for_tokens(int64_t{sequence->known()} + 1));
  RequestFacts& facts = sequence->channel->facts();
  ++facts.preemptions;
  facts.stall_ns += now_ns - sequence->accounted_ns;
  sequence->accounted_ns = now_ns;
  ++pauses_;
  fair_share_.pause(sequence->request_class);
  CHECK_LT(paused_.size(), paused_.capacity());
  paused_.insert(std::upper_bound(paused_.begin(), paused_.end(), sequence, is_before),
                 std::move(sequence));
}

// Its blocks may be taken at once, and the first that are are copied first: the cache evicts a
// sequence's last block first, a pool without it hands out what came back last.
void Scheduler::keep_on_host(Sequence& sequence) {
  if (sequence.returning()) {  // the host still has it
    sequence.arrives_with = 0;
    return;
  }
  CHECK(sequence.host_table.empty());
  const int32_t blocks = kv::blocks_for_tokens(sequence.computed);
  if (blocks > host_pool_.free()) return;
  sequence.saved = sequence.computed;
  for (int32_t i = 0; i < blocks; ++i) {
    sequence.host_table.push_back(host_pool_.take_free());
    saves_.push_back({.block = sequence.block_table[static_cast<size_t>(i)],
                      .host_block = sequence.host_table.back()});
  }
  if (config_.prefix_cache) std::reverse(saves_.end() - blocks, saves_.end());
  if (blocks > 0 && commits(PlantedBug::kLostSave)) saves_.pop_back();
}

// It has started: what the prefix cache did not have is taken, and filled from the host.
void Scheduler::bring_back(Sequence& sequence) {
  const size_t first = restores_.size();
  for (size_t i = sequence.block_table.size(); i < sequence.host_table.size(); ++i) {
    sequence.block_table.push_back(cache_.take());
    --promised_;
    restores_.push_back(
        {.block = sequence.block_table.back(), .host_block = sequence.host_table[i]});
  }
  sequence.computed = sequence.saved;
  sequence.arrives_with = kNotAskedFor;
  if (restores_.size() - first > 1 && commits(PlantedBug::kMixedUpRestore)) {
    std::swap(restores_[first].block, restores_.back().block);
  }
}

void Scheduler::forget_on_host(Sequence& sequence) {
  if (!sequence.host_table.empty() && commits(PlantedBug::kLeakedHostBlock)) {
    sequence.host_table.pop_back();
  }
  for (BlockId block : sequence.host_table) host_pool_.release(block);
  sequence.host_table.clear();
  sequence.saved = 0;
  sequence.arrives_with = 0;
}

void Scheduler::expect(const StepPlan& plan, uint64_t copy) {
  for (const StepPlan::Row& row : plan.returns) row.sequence->arrives_with = copy;
}

void Scheduler::arrive(uint64_t copies) {
  for (const auto& sequence : running_) {
    if (sequence->returning() && sequence->arrives_with <= copies) forget_on_host(*sequence);
  }
}

uint64_t Scheduler::next_arrival() const {
  uint64_t first = 0;
  for (const auto& sequence : running_) {
    if (!sequence->returning()) continue;
    first = first == 0 ? sequence->arrives_with : std::min(first, sequence->arrives_with);
  }
  return first;
}

void Scheduler::set_pool_limit(int32_t num_blocks, TimeNs now_ns) {
  const int32_t withheld = pool_.total() - std::clamp(num_blocks, 0, pool_.total());
  while (pool_.withheld() > withheld) pool_.restore();
  while (pool_.withheld() < withheld) {
    if (pool_.available() > promised_) {
      cache_.make_room();
      pool_.withhold();
    } else {
      CHECK(pause_last(now_ns));  // with none running nothing is promised or held
    }
  }
}

}  // namespace puna::engine
