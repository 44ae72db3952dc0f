// SPDX-License-Identifier: Apache-2.0
// A backend runs steps: the batch's forward pass and sampling. It takes no decisions and knows no
// requests. It owns the weights and the physical KV blocks of one model. Called by the engine
// thread only.
//
// start() and collect() are apart so that a device backend computes while the engine plans the next
// step; at most one step is in flight. A CPU backend does the work inside start().
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "engine/batch.h"

namespace puna::engine {

struct BackendLimits {
  int32_t num_blocks = 0;        // physical KV blocks
  int32_t max_num_seqs = 0;      // slots, and items in a batch
  int32_t max_batch_tokens = 0;  // tokens in a batch
  int32_t max_model_len = 0;     // positions in a sequence
  int32_t vocab_size = 0;
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
};

}  // namespace puna::engine
