// SPDX-License-Identifier: Apache-2.0
// Logits to one token. A pure function of (logits, parameters, history, position): the RNG is
// counter-based, keyed by (seed, position), so the same request gives the same tokens in any
// company. One Sampler per thread; it owns scratch for one vocabulary and never allocates after
// construction.
//
// Order: penalties and logit_bias -> logprobs are read -> temperature -> top_k -> top_p -> min_p ->
// draw. Tokens are drawn in the order of their ids; of equal logits the lower id ranks first. NaN
// counts as -inf, and +inf as the largest float, so every input gives some token that is not
// banned.
//
//   Sampler sampler(vocab_size);
//   sampler.sample(logits, item, sampled);
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "engine/batch.h"
#include "engine/softmax.h"
#include "engine/token_cut.h"

namespace puna::engine {

// Below this the distribution is one token for any logits that differ at all.
inline constexpr float kGreedyTemperature = 1e-5F;

class Sampler {
 public:
  // `isa` as for softmax_passes(): it sets the speed, the results are the same.
  explicit Sampler(int32_t vocab_size, std::string_view isa = {});

  // Penalties, biases and bans change `logits` [vocab_size]. Fields of `item`: sampling, history,
  // prompt_tokens, banned.
  void sample(std::span<float> logits, const BatchItem& item, SampledToken& out);

 private:
  void apply_penalties(std::span<float> logits, const BatchItem& item);
  TokenId best_token(std::span<const float> logits) const;
  TokenId lowest_allowed(std::span<const TokenId> banned);
  void fill_probabilities(std::span<const float> logits, float scale);
  void report_logprobs(std::span<const float> logits, int32_t num_top, SampledToken& out) const;
  TokenId draw(std::span<const float> logits, const SamplingParams& params, uint64_t position);
  void truncate(std::span<const float> logits, const SamplingParams& params, float scale);

  const size_t vocab_size_;
  const SoftmaxPasses* passes_;
  std::vector<float> probabilities_;   // not normalised; [vocab_size, padded to chunks with zeros]
  std::vector<float> chunk_maxima_;    // of the logits
  std::vector<double> chunk_sums_;     // of probabilities_
  double total_ = 0;                   // of chunk_sums_
  std::vector<uint32_t> occurrences_;  // per token, zero between calls: see apply_penalties()
  TokenCutFinder cut_finder_;
  float largest_ = 0;  // of chunk_maxima_
};

}  // namespace puna::engine
