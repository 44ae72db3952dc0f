// SPDX-License-Identifier: Apache-2.0
// Where top-k and top-p cut the vocabulary, found without sorting it: a bound below the border,
// which a few fast passes improve, leaves some candidates; these are counted and weighed in buckets
// of their probability, and only the bucket that holds the border is looked into. Tokens are ranked
// by logit, equal ones by lower id. One per Sampler; no allocation after construction.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/softmax.h"
#include "model/tokenizer.h"

namespace puna::engine {

// What the sampler knows about a row of logits before it cuts it; spans end at the vocabulary.
struct TokenDistribution {
  std::span<const float> logits;         // clean_logit() applies
  std::span<const float> chunk_maxima;   // of the logits
  std::span<const float> probabilities;  // e^((logit - largest) * scale), so the best one's is 1
  float largest = 0.0F;                  // of the logits
  float scale = 1.0F;
  double total = 0.0;  // of the probabilities
};

// The last token that stays.
struct TokenCut {
  float logit;
  model::TokenId id;
  bool keeps(float other, model::TokenId other_id) const {
    return other > logit || (other == logit && other_id <= id);
  }
};

class TokenCutFinder {
 public:
  TokenCutFinder(int32_t vocab_size, const SoftmaxPasses& passes);

  // The cut keeps the top_k best (0: all), and of those the fewest best whose share is at least
  // top_p.
  TokenCut find(const TokenDistribution& distribution, int32_t top_k, float top_p);

 private:
  // 32 buckets per factor e of probability; the last one holds everything below e^-32.
  static constexpr size_t kBuckets = 1024;
  float logit(model::TokenId id) const {
    return clean_logit(distribution_.logits[static_cast<size_t>(id)]);
  }
  double probability(model::TokenId id) const {
    return static_cast<double>(distribution_.probabilities[static_cast<size_t>(id)]);
  }
  size_t bucket_of(model::TokenId id) const;
  float floor_of_rank(size_t top_k);
  float floor_of_mass(float top_p) const;
  TokenMass weigh(float floor) const;
  float raise_floor(float floor, const TokenMass& least) const;
  void gather_candidates(float floor);
  void fill_buckets();
  // The candidates in one bucket that `cut` keeps.
  std::span<model::TokenId> gather(size_t bucket, const TokenCut& cut);
  TokenCut cut_by_rank(std::span<model::TokenId> tokens, size_t rank, double& mass_kept);
  TokenCut cut_by_mass(std::span<model::TokenId> tokens, double mass);
  bool ranks_before(model::TokenId a, model::TokenId b) const;
  double mass_of(std::span<const model::TokenId> tokens) const;

  const SoftmaxPasses* passes_;
  std::vector<model::TokenId> order_;     // [vocab_size]
  std::span<model::TokenId> candidates_;  // in order_
  std::vector<float> maxima_;             // [chunks], scratch
  std::vector<int32_t> counts_;           // [kBuckets]
  std::vector<double> masses_;            // [kBuckets]
  TokenDistribution distribution_;        // of the call in progress
};

}  // namespace puna::engine
