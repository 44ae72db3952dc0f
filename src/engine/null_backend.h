// SPDX-License-Identifier: Apache-2.0
// A backend without a model: deterministic logits from a hash of a sequence's whole history, and
// steps that take virtual time. It keeps what a real KV block would: in each cell the token and
// position that were computed into it. On every step it CHECKs that the block table gives exactly
// the sequence's earlier tokens, so a stale, aliased or early-freed block ends the test at once;
// and so does one that was copied to the host and back, lost or mixed up there, or read too early.
//
//   VirtualClock clock;
//   NullBackend backend({.limits = {.num_blocks = 64, ...}}, &clock);
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "engine/backend.h"
#include "engine/sampler.h"

namespace puna::engine {

struct NullBackendConfig {
  BackendLimits limits;
  // A step's virtual duration: fixed + per sequence that decodes + per prompt token.
  TimeNs step_ns = 2 * kNsPerMs;
  TimeNs decode_row_ns = kNsPerMs / 10;
  TimeNs prefill_token_ns = kNsPerMs / 50;
  // Of a copy of a block to the host or back. Copies run one after the other, beside steps.
  TimeNs block_copy_ns = 0;
};

class NullBackend final : public Backend {
 public:
  // `clock` may be null: steps take no time then.
  NullBackend(const NullBackendConfig& config, VirtualClock* clock);

  std::string_view name() const override { return "null"; }
  const BackendLimits& limits() const override { return config_.limits; }
  void start(const Batch& batch) override;
  std::span<const SampledToken> collect() override;
  void save(std::span<const KvCopy> copies) override;
  uint64_t restore(std::span<const KvCopy> copies) override;
  uint64_t copied() override;
  void wait_for_copy(uint64_t number) override;

  // The next step takes so much longer.
  void stall(TimeNs by_ns) { stall_ns_ += by_ns; }
  // The logits behind `history`: what the reference of a test samples from.
  static void logits_after(std::span<const TokenId> history, std::span<float> logits);

 private:
  struct Cell {
    TokenId token = -1;
    int32_t position = -1;
  };

  void check_item(const BatchItem& item) const;
  void write_cells(const BatchItem& item);
  void check_cells(const BatchItem& item) const;
  size_t cell_index(const BatchItem& item, int32_t position) const;
  std::span<Cell> cells_of(kv::BlockId block);
  std::span<Cell> host_cells_of(kv::BlockId block);
  void ask_for_copies(size_t count);

  const NullBackendConfig config_;
  VirtualClock* clock_;
  Sampler sampler_;
  std::vector<Cell> cells_;             // [num_blocks, kBlockTokens]
  std::vector<Cell> host_cells_;        // [num_host_blocks, kBlockTokens]
  std::vector<uint64_t> arrives_with_;  // [num_blocks]: the copy that filled it, 0: a step did
  uint64_t copies_asked_ = 0;
  uint64_t copied_ = 0;                // as the engine saw it last
  TimeNs copies_end_ns_ = 0;           // when the last one will be done
  std::vector<TokenId> last_sampled_;  // [slots]
  std::vector<float> logits_;
  std::vector<SampledToken> sampled_;
  size_t num_sampled_ = 0;
  TimeNs stall_ns_ = 0;
};

}  // namespace puna::engine
