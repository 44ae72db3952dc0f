// SPDX-License-Identifier: Apache-2.0
// A backend runs steps: the batch's forward pass and sampling. It takes no decisions and knows no
// requests. It owns the weights and the physical KV blocks of one model. Called by the engine
// thread only.
//
// start() and collect() are apart so that a device backend computes while the engine plans the next
// step; at most one step is in flight. A CPU backend does the work inside start().
//
// A device backend may have host memory for the blocks of paused sequences. Copies there (save) and
// back (restore) are asked for while no step is in flight, run beside later steps, and take effect
// in the order in which they were asked for. Both kinds of blocks may be used again at once: a step
// that writes to a block comes after the copies of it that were asked for before. But a step names
// a restored block only when its copy is done.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "engine/batch.h"

namespace puna::engine {

struct BackendLimits {
  int32_t num_blocks = 0;        // physical KV blocks
  int32_t max_num_seqs = 0;      // slots, and items in a batch
  int32_t max_batch_tokens = 0;  // tokens in a batch
  int32_t max_model_len = 0;     // positions in a sequence
  int32_t vocab_size = 0;
  int32_t num_host_blocks = 0;  // places for blocks in host memory
  // Steps of other numbers of tokens take as long as the next of these, rising; empty: no others.
  std::vector<int32_t> full_steps{};
};

// A block, and its place in host memory: less than num_host_blocks.
struct KvCopy {
  kv::BlockId block = kv::kNoBlock;
  kv::BlockId host_block = kv::kNoBlock;
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string_view name() const = 0;  // "cpu", "cuda", "null"
  virtual const BackendLimits& limits() const = 0;

  // Begins the step. The batch obeys limits() (CHECKed).
  virtual void start(const Batch& batch) = 0;
  // Waits for the step begun last. One entry per item with `sample`, in item order; valid until the
  // next start().
  virtual std::span<const SampledToken> collect() = 0;

  // Where there are host blocks; elsewhere they are not called, but for copied().
  // From the blocks to the host. `copies` is read during the call only, here and below.
  virtual void save(std::span<const KvCopy> /*copies*/) {}
  // From the host to the blocks. Returns the number of the last copy, of all that were ever asked
  // for, counted from 1.
  virtual uint64_t restore(std::span<const KvCopy> /*copies*/) { return 0; }
  // How many copies are done, in the order of their numbers. Never waits.
  virtual uint64_t copied() { return 0; }
  // Waits until copy `number` is done, but not long: the caller may have other things to do.
  virtual void wait_for_copy(uint64_t /*number*/) {}
};

}  // namespace puna::engine
