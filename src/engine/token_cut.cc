// SPDX-License-Identifier: Apache-2.0
#include "engine/token_cut.h"

#include <algorithm>

#include "base/check.h"
#include "engine/softmax.h"

namespace puna::engine {

using model::TokenId;

TokenCutFinder::TokenCutFinder(int32_t vocab_size)
    : order_(static_cast<size_t>(vocab_size)), counts_(kBuckets), masses_(kBuckets) {}

bool TokenCutFinder::ranks_before(TokenId a, TokenId b) const {
  const float value_a = values_[static_cast<size_t>(a)];
  const float value_b = values_[static_cast<size_t>(b)];
  return value_a > value_b || (value_a == value_b && a < b);
}

double TokenCutFinder::mass_of(std::span<const TokenId> tokens) const {
  double mass = 0;
  for (TokenId id : tokens) mass += static_cast<double>(probabilities_[static_cast<size_t>(id)]);
  return mass;
}

void TokenCutFinder::fill_buckets() {
  std::fill(counts_.begin(), counts_.end(), 0);
  std::fill(masses_.begin(), masses_.end(), 0.0);
  for (size_t i = 0; i < values_.size(); ++i) {
    const auto bucket = static_cast<size_t>(bucket_of(values_[i]));
    ++counts_[bucket];
    masses_[bucket] += static_cast<double>(probabilities_[i]);
  }
}

std::span<TokenId> TokenCutFinder::gather(int bucket, const TokenCut& cut) {
  size_t count = 0;
  for (size_t i = 0; i < values_.size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    if (bucket_of(values_[i]) == bucket && cut.keeps(values_[i], id)) order_[count++] = id;
  }
  CHECK_GT(count, size_t{0});
  return std::span(order_).first(count);
}

TokenCut TokenCutFinder::cut_by_rank(std::span<TokenId> tokens, size_t rank, double& mass_kept) {
  const auto last = tokens.begin() + static_cast<std::ptrdiff_t>(rank) - 1;
  std::nth_element(tokens.begin(), last, tokens.end(),
                   [this](TokenId a, TokenId b) { return ranks_before(a, b); });
  mass_kept += mass_of(tokens.first(rank));
  return {values_[static_cast<size_t>(*last)], *last};
}

// Halves the candidates around the border until few are left to sort: linear in their number.
TokenCut TokenCutFinder::cut_by_mass(std::span<TokenId> tokens, double mass) {
  const auto before = [this](TokenId a, TokenId b) { return ranks_before(a, b); };
  while (tokens.size() > 32) {
    const size_t half = tokens.size() / 2;
    std::nth_element(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(half),
                     tokens.end(), before);
    const double better = mass_of(tokens.first(half));
    if (better >= mass) {
      tokens = tokens.first(half);
    } else {
      mass -= better;
      tokens = tokens.subspan(half);
    }
  }
  std::sort(tokens.begin(), tokens.end(), before);
  size_t last = 0;
  for (; last + 1 < tokens.size(); ++last) {
    mass -= static_cast<double>(probabilities_[static_cast<size_t>(tokens[last])]);
    if (mass <= 0) break;
  }
  return {values_[static_cast<size_t>(tokens[last])], tokens[last]};
}

TokenCut TokenCutFinder::find(std::span<const float> values, std::span<const float> probabilities,
                              int32_t top_k, float top_p) {
  CHECK_LE(values.size(), order_.size());
  values_ = values;
  probabilities_ = probabilities;
  fill_buckets();
  TokenCut cut = {kMinusInfinity, static_cast<TokenId>(values.size())};
  size_t last_bucket = kBuckets - 1;
  double mass = 0;  // of the tokens kept so far
  if (top_k > 0 && static_cast<size_t>(top_k) < values.size()) {
    int32_t left = top_k;
    for (last_bucket = 0; counts_[last_bucket] < left; ++last_bucket) {
      left -= counts_[last_bucket];
      mass += masses_[last_bucket];
    }
    cut = cut_by_rank(gather(static_cast<int>(last_bucket), cut), static_cast<size_t>(left), mass);
  } else {
    for (double bucket_mass : masses_) mass += bucket_mass;
  }
  if (top_p < 1.0F) {
    double left = static_cast<double>(top_p) * mass;
    size_t bucket = 0;
    for (; bucket < last_bucket && masses_[bucket] < left; ++bucket) left -= masses_[bucket];
    // Rounding may leave a crumb of `left` behind the last token with any mass.
    while (counts_[bucket] == 0) --bucket;
    cut = cut_by_mass(gather(static_cast<int>(bucket), cut), left);
  }
  return cut;
}

}  // namespace puna::engine
