// SPDX-License-Identifier: Apache-2.0
#include "engine/null_backend.h"

#include <algorithm>

#include "base/check.h"

namespace puna::engine {
namespace {

// The finaliser of SplitMix64.
uint64_t mix(uint64_t value) {
  value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9ULL;
  value = (value ^ (value >> 27)) * 0x94D049BB133111EBULL;
  return value ^ (value >> 31);
}

}  // namespace

NullBackend::NullBackend(const NullBackendConfig& config, VirtualClock* clock)
    : config_(config),
      clock_(clock),
      sampler_(config.limits.vocab_size),
      cells_(static_cast<size_t>(config.limits.num_blocks) * kv::kBlockTokens),
      host_cells_(static_cast<size_t>(config.limits.num_host_blocks) * kv::kBlockTokens),
      arrives_with_(static_cast<size_t>(config.limits.num_blocks)),
      last_sampled_(static_cast<size_t>(config.limits.max_num_seqs), -1),
      logits_(static_cast<size_t>(config.limits.vocab_size)),
      sampled_(static_cast<size_t>(config.limits.max_num_seqs)) {}

void NullBackend::logits_after(std::span<const TokenId> history, std::span<float> logits) {
  uint64_t hash = 0;
  for (TokenId token : history) hash = mix(hash + static_cast<uint64_t>(token) + 1);
  for (size_t id = 0; id < logits.size(); ++id) {
    const uint64_t bits = mix(hash ^ (id * 0x9E3779B97F4A7C15ULL)) >> 40;  // 24 of them
    logits[id] = static_cast<float>(bits) * 0x1p-21F - 4.0F;               // [-4, 4)
  }
}

size_t NullBackend::cell_index(const BatchItem& item, int32_t position) const {
  const kv::BlockId block = item.block_table[static_cast<size_t>(position / kv::kBlockTokens)];
  CHECK(block >= 0 && block < config_.limits.num_blocks);
  return static_cast<size_t>(block) * kv::kBlockTokens +
         static_cast<size_t>(position % kv::kBlockTokens);
}

void NullBackend::check_item(const BatchItem& item) const {
  CHECK(item.slot >= 0 && item.slot < config_.limits.max_num_seqs);
  CHECK(item.first_position >= 0 && item.num_tokens > 0);
  const int32_t end = item.first_position + item.num_tokens;
  CHECK_LE(end, config_.limits.max_model_len);
  CHECK_GE(item.block_table.size(), static_cast<size_t>(kv::blocks_for_tokens(end)));
  CHECK_EQ(item.history.size(), static_cast<size_t>(end));
  CHECK(item.tokens.size() == static_cast<size_t>(item.num_tokens) ||
        (item.tokens.empty() && item.num_tokens == 1));
}

void NullBackend::write_cells(const BatchItem& item) {
  for (int32_t i = 0; i < item.num_tokens; ++i) {
    const TokenId token = item.tokens.empty() ? last_sampled_[static_cast<size_t>(item.slot)]
                                              : item.tokens[static_cast<size_t>(i)];
    CHECK(token >= 0 && token < config_.limits.vocab_size);
    const int32_t position = item.first_position + i;
    const size_t cell = cell_index(item, position);
    cells_[cell] = {token, position};
    arrives_with_[cell / kv::kBlockTokens] = 0;
  }
}

// After all items wrote: what this one reads through its block table must be its own history.
void NullBackend::check_cells(const BatchItem& item) const {
  for (int32_t position = 0; position < static_cast<int32_t>(item.history.size()); ++position) {
    const size_t cell = cell_index(item, position);
    const Cell& read = cells_[cell];
    CHECK_LE(arrives_with_[cell / kv::kBlockTokens], copied_);
    CHECK_EQ(read.position, position);
    CHECK_EQ(read.token, item.history[static_cast<size_t>(position)]);
  }
}

void NullBackend::start(const Batch& batch) {
  CHECK_LE(batch.items.size(), sampled_.size());
  CHECK_LE(batch.num_tokens, config_.limits.max_batch_tokens);
  TimeNs duration_ns = config_.step_ns + stall_ns_;
  int32_t num_tokens = 0;
  for (const BatchItem& item : batch.items) {
    check_item(item);
    write_cells(item);
    num_tokens += item.num_tokens;
    duration_ns +=
        item.num_tokens == 1 ? config_.decode_row_ns : config_.prefill_token_ns * item.num_tokens;
  }
  CHECK_EQ(num_tokens, batch.num_tokens);
  num_sampled_ = 0;
  for (const BatchItem& item : batch.items) {
    check_cells(item);
    if (!item.sample) continue;
    logits_after(item.history, logits_);
    SampledToken& out = sampled_[num_sampled_++];
    sampler_.sample(logits_, item, out);
    last_sampled_[static_cast<size_t>(item.slot)] = out.token;
  }
  CHECK_EQ(num_sampled_, static_cast<size_t>(batch.num_samples));
  stall_ns_ = 0;
  if (clock_ != nullptr) clock_->advance(duration_ns);
}

std::span<NullBackend::Cell> NullBackend::cells_of(kv::BlockId block) {
  CHECK(block >= 0 && block < config_.limits.num_blocks);
  return std::span(cells_).subspan(static_cast<size_t>(block) * kv::kBlockTokens, kv::kBlockTokens);
}

std::span<NullBackend::Cell> NullBackend::host_cells_of(kv::BlockId block) {
  CHECK(block >= 0 && block < config_.limits.num_host_blocks);
  return std::span(host_cells_)
      .subspan(static_cast<size_t>(block) * kv::kBlockTokens, kv::kBlockTokens);
}

void NullBackend::ask_for_copies(size_t count) {
  copies_asked_ += count;
  if (clock_ == nullptr) return;
  copies_end_ns_ = std::max(copies_end_ns_, clock_->now_ns()) +
                   static_cast<TimeNs>(count) * config_.block_copy_ns;
}

void NullBackend::save(std::span<const KvCopy> copies) {
  for (const KvCopy& copy : copies) {
    std::ranges::copy(cells_of(copy.block), host_cells_of(copy.host_block).begin());
  }
  ask_for_copies(copies.size());
}

uint64_t NullBackend::restore(std::span<const KvCopy> copies) {
  ask_for_copies(copies.size());
  for (const KvCopy& copy : copies) {
    std::ranges::copy(host_cells_of(copy.host_block), cells_of(copy.block).begin());
    arrives_with_[static_cast<size_t>(copy.block)] = copies_asked_;
  }
  return copies_asked_;
}

uint64_t NullBackend::copied() {
  copied_ = copies_asked_;
  if (clock_ != nullptr && clock_->now_ns() < copies_end_ns_) {
    const TimeNs left_ns = copies_end_ns_ - clock_->now_ns();
    copied_ -= static_cast<uint64_t>((left_ns - 1) / config_.block_copy_ns + 1);
  }
  return copied_;
}

void NullBackend::wait_for_copy(uint64_t number) {
  CHECK(number > 0 && number <= copies_asked_);
  if (clock_ == nullptr) return;
  const TimeNs done_ns =
      copies_end_ns_ - static_cast<TimeNs>(copies_asked_ - number) * config_.block_copy_ns;
  clock_->advance(std::max<TimeNs>(0, done_ns - clock_->now_ns()));
}

std::span<const SampledToken> NullBackend::collect() {
  return std::span(sampled_).first(num_sampled_);
}

}  // namespace puna::engine
