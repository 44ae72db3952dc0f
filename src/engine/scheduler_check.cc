// SPDX-License-Identifier: Apache-2.0
// The scheduler's invariants, spelled out apart from the code that keeps them.
#include <algorithm>

#include "base/check.h"
#include "engine/scheduler.h"

namespace puna::engine {

using kv::BlockId;
using kv::kBlockTokens;

void Scheduler::check_running() const {
  CHECK_EQ(running_.size() + free_slots_.size(), max_running_);
  std::array<int32_t, kNumClasses> reserved = {};
  std::array<int32_t, kNumClasses> running = {};
  for (const auto& sequence : running_) {
    CHECK(sequence->slot >= 0 && sequence->left() > 0);
    CHECK_LE(sequence->block_table.size(), static_cast<size_t>(sequence->reserved_blocks));
    CHECK_GE(static_cast<int32_t>(sequence->block_table.size()) * kBlockTokens, sequence->computed);
    CHECK_EQ(std::count(free_slots_.begin(), free_slots_.end(), sequence->slot), 0);
    reserved[index_of(sequence->request_class)] += sequence->reserved_blocks;
    ++running[index_of(sequence->request_class)];
  }
  CHECK(reserved == class_reserved_ && running == class_running_);
}

// Every place on the host belongs to one sequence, which is paused or comes back from there.
void Scheduler::check_host() const {
  host_pool_.check();
  std::vector<int32_t> holders(static_cast<size_t>(host_pool_.total()));
  for (const Queue* queue : {&running_, &paused_, &waiting_}) {
    for (const auto& sequence : *queue) {
      CHECK_EQ(sequence->host_table.size(),
               static_cast<size_t>(kv::blocks_for_tokens(sequence->saved)));
      CHECK(queue != &running_ || sequence->returning() == (sequence->saved > 0));
      CHECK(queue == &running_ || !sequence->returning());
      CHECK(queue != &waiting_ || sequence->saved == 0);
      CHECK_LT(sequence->saved, sequence->known());
      for (BlockId block : sequence->host_table) ++holders[static_cast<size_t>(block)];
    }
  }
  for (BlockId block = 0; block < host_pool_.total(); ++block) {
    CHECK_EQ(holders[static_cast<size_t>(block)], host_pool_.references(block));
    CHECK_LE(holders[static_cast<size_t>(block)], 1);
  }
}

void Scheduler::check() const {
  pool_.check();
  cache_.check();
  check_running();
  check_host();
  std::vector<int32_t> references(static_cast<size_t>(pool_.total()));
  int32_t promised = 0;
  for (const auto& sequence : running_) {
    promised += sequence->reserved_blocks - static_cast<int32_t>(sequence->block_table.size());
    for (BlockId block : sequence->block_table) ++references[static_cast<size_t>(block)];
  }
  CHECK_EQ(promised, promised_);
  CHECK_LE(promised_, pool_.available());
  for (BlockId block = 0; block < pool_.total(); ++block) {
    CHECK_EQ(references[static_cast<size_t>(block)], pool_.references(block));
  }
  std::array<int32_t, kNumClasses> waiting = {};
  for (const Queue* queue : {&paused_, &waiting_}) {
    for (const auto& sequence : *queue) {
      CHECK(sequence->slot == -1 && sequence->block_table.empty() && sequence->computed == 0);
      CHECK(queue == &waiting_ ||
            sequence->reserved_blocks >= kv::blocks_for_tokens(int64_t{sequence->known()} + 1));
      ++waiting[index_of(sequence->request_class)];
    }
  }
  for (size_t rank = 0; rank < kNumClasses; ++rank) {
    CHECK_EQ(waiting[rank], fair_share_.waiting(static_cast<RequestClass>(rank)));
  }
}

}  // namespace puna::engine
