// SPDX-License-Identifier: Apache-2.0
// Logits to one token. A pure function of (logits, parameters, history, position): the RNG is counter-based,
// keyed by (seed, position), so the same request gives the same tokens in any company. One Sampler per
// thread; it owns scratch for one vocabulary and never allocates after construction.
//
// Order: penalties and logit_bias -> logprobs are read -> temperature -> top_k -> top_p -> min_p -> draw.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/batch.h"

namespace puna::engine {

class Sampler {
 public:
  explicit Sampler(int32_t vocab_size);

  // `logits` [vocab_size] is used as scratch. Fields of `item`: sampling, history, prompt_tokens, banned.
  void sample(std::span<float> logits, const BatchItem& item, SampledToken& out);

 private:
  std::vector<int32_t> order_;      // token ids under consideration
  std::vector<float> probability_;  // of order_[i]
  std::vector<int32_t> counts_;     // output occurrences per token, zero between calls
};

}  // namespace puna::engine
