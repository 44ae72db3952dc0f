// SPDX-License-Identifier: Apache-2.0
// Where top-k and top-p cut the vocabulary, found without sorting it: tokens are counted and
// weighed in buckets of their value, and only the bucket that holds the border is looked into.
// Tokens are ranked by value, equal ones by lower id. One per Sampler; no allocation after
// construction.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/tokenizer.h"

namespace puna::engine {

// The last token that stays.
struct TokenCut {
  float value;
  model::TokenId id;
  bool keeps(float other, model::TokenId other_id) const {
    return other > value || (other == value && other_id <= id);
  }
};

class TokenCutFinder {
 public:
  explicit TokenCutFinder(int32_t vocab_size);

  // `values` are scaled logits minus their maximum (<= 0), `probabilities` their exp; one per
  // token. The cut keeps the top_k best (0: all), and of those the fewest best whose share is at
  // least top_p.
  TokenCut find(std::span<const float> values, std::span<const float> probabilities, int32_t top_k,
                float top_p);

 private:
  // 32 buckets per factor e of probability; the last one holds everything below e^-32.
  static constexpr int kBuckets = 1024;
  static int bucket_of(float value) {
    const float scaled = value * -32.0F;
    return static_cast<int>(scaled < kBuckets - 1 ? scaled : kBuckets - 1);
  }
  void fill_buckets();
  // The tokens of one bucket that `cut` keeps, in order_.
  std::span<model::TokenId> gather(int bucket, const TokenCut& cut);
  TokenCut cut_by_rank(std::span<model::TokenId> tokens, size_t rank, double& mass_kept);
  TokenCut cut_by_mass(std::span<model::TokenId> tokens, double mass);
  bool ranks_before(model::TokenId a, model::TokenId b) const;
  double mass_of(std::span<const model::TokenId> tokens) const;

  std::vector<model::TokenId> order_;  // [vocab_size]
  std::vector<int32_t> counts_;        // [kBuckets]
  std::vector<double> masses_;         // [kBuckets]
  std::span<const float> values_;      // of the call in progress
  std::span<const float> probabilities_;
};

}  // namespace puna::engine
