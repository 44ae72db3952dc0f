// SPDX-License-Identifier: Apache-2.0
#include "engine/token_cut.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace puna::engine {

using model::TokenId;

TokenCutFinder::TokenCutFinder(int32_t vocab_size, const SoftmaxPasses& passes)
    : passes_(&passes),
      order_(static_cast<size_t>(vocab_size)),
      maxima_(chunks_of(order_.size())),
      counts_(kBuckets),
      masses_(kBuckets) {}

bool TokenCutFinder::ranks_before(TokenId a, TokenId b) const {
  return logit(a) > logit(b) || (logit(a) == logit(b) && a < b);
}

double TokenCutFinder::mass_of(std::span<const TokenId> tokens) const {
  double mass = 0;
  for (TokenId id : tokens) mass += probability(id);
  return mass;
}

size_t TokenCutFinder::bucket_of(TokenId id) const {
  const float depth = (logit(id) - distribution_.largest) * distribution_.scale * -32.0F;
  return static_cast<size_t>(std::min(depth, static_cast<float>(kBuckets - 1)));
}

// The top_k best tokens are at least this good: as many chunks hold one that is, or it was counted.
float TokenCutFinder::floor_of_rank(size_t top_k) {
  const std::span<const float> maxima = distribution_.chunk_maxima;
  const auto end = std::copy(maxima.begin(), maxima.end(), maxima_.begin());
  const auto rank =
      maxima_.begin() + static_cast<std::ptrdiff_t>(std::min(top_k, maxima.size())) - 1;
  std::nth_element(maxima_.begin(), rank, end, std::greater<>());
  if (top_k <= maxima.size()) return *rank;
  // Twice, four times, ... as far below the best one as that.
  float depth = distribution_.largest - *rank;
  for (int doublings = 0; doublings < 4; ++doublings) {
    depth *= 2;
    const float floor = distribution_.largest - depth;
    if (weigh(floor).count >= top_k) return raise_floor(floor, {.count = top_k});
  }
  return kMinusInfinity;
}

// The last token that top_p keeps is at least this good: if every token of the vocabulary were
// worse, they would still not add up to the share that top_p leaves out.
float TokenCutFinder::floor_of_mass(float top_p) const {
  constexpr double kRounding = 0.99;  // more than the sums and exp_of_nonpositive are off
  const double least = (1.0 - static_cast<double>(top_p)) * distribution_.total /
                       static_cast<double>(distribution_.logits.size()) * kRounding;
  const double floor = static_cast<double>(distribution_.largest) +
                       std::log(least) / static_cast<double>(distribution_.scale);
  if (!(floor > static_cast<double>(-kLargestLogit))) return kMinusInfinity;
  constexpr double kSumError = 1e-5;  // relative, of sums in float
  return raise_floor(
      std::nextafter(static_cast<float>(floor), kMinusInfinity),
      {.probability = static_cast<double>(top_p) * distribution_.total * (1 + kSumError)});
}

TokenMass TokenCutFinder::weigh(float floor) const {
  return passes_->mass_at_least(distribution_.logits.data(), distribution_.logits.size(), floor,
                                distribution_.probabilities.data());
}

// Halves the way to the best token while more than a few candidates are above `floor`, and what is
// above it is still `least`.
float TokenCutFinder::raise_floor(float floor, const TokenMass& least) const {
  constexpr size_t kFew = 2048;
  constexpr int kMostNarrowings = 6;
  TokenMass mass = weigh(floor);
  float too_high = distribution_.largest;
  for (int step = 0; step < kMostNarrowings && mass.count > kFew; ++step) {
    const float middle = floor + (too_high - floor) / 2;
    const TokenMass above = weigh(middle);
    if (above.count >= least.count && above.probability >= least.probability) {
      floor = middle;
      mass = above;
    } else {
      too_high = middle;
    }
  }
  return floor;
}

void TokenCutFinder::gather_candidates(float floor) {
  const std::span<const float> logits = distribution_.logits;
  size_t count = 0;
  for (size_t chunk = 0; chunk < distribution_.chunk_maxima.size(); ++chunk) {
    if (distribution_.chunk_maxima[chunk] < floor) continue;
    const size_t end = std::min((chunk + 1) * kSumChunk, logits.size());
    for (size_t i = chunk * kSumChunk; i < end; ++i) {
      order_[count] = static_cast<TokenId>(i);
      count += clean_logit(logits[i]) >= floor ? 1 : 0;  // without a branch
    }
  }
  candidates_ = std::span(order_).first(count);
}

void TokenCutFinder::fill_buckets() {
  std::fill(counts_.begin(), counts_.end(), 0);
  std::fill(masses_.begin(), masses_.end(), 0.0);
  for (const TokenId id : candidates_) {
    const size_t bucket = bucket_of(id);
    ++counts_[bucket];
    masses_[bucket] += probability(id);
  }
}

std::span<TokenId> TokenCutFinder::gather(size_t bucket, const TokenCut& cut) {
  const auto end = std::partition(candidates_.begin(), candidates_.end(), [&](TokenId id) {
    return bucket_of(id) == bucket && cut.keeps(logit(id), id);
  });
  CHECK(end != candidates_.begin());
  return {candidates_.begin(), end};
}

TokenCut TokenCutFinder::cut_by_rank(std::span<TokenId> tokens, size_t rank, double& mass_kept) {
  const auto last = tokens.begin() + static_cast<std::ptrdiff_t>(rank) - 1;
  std::nth_element(tokens.begin(), last, tokens.end(),
                   [this](TokenId a, TokenId b) { return ranks_before(a, b); });
  mass_kept += mass_of(tokens.first(rank));
  return {logit(*last), *last};
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
    mass -= probability(tokens[last]);
    if (mass <= 0) break;
  }
  return {logit(tokens[last]), tokens[last]};
}

TokenCut TokenCutFinder::find(const TokenDistribution& distribution, int32_t top_k, float top_p) {
  CHECK_LE(distribution.logits.size(), order_.size());
  distribution_ = distribution;
  const bool by_rank = top_k > 0 && static_cast<size_t>(top_k) < distribution.logits.size();
  gather_candidates(by_rank ? floor_of_rank(static_cast<size_t>(top_k)) : floor_of_mass(top_p));
  fill_buckets();
  TokenCut cut = {kMinusInfinity, static_cast<TokenId>(distribution.logits.size()) - 1};
  size_t last_bucket = kBuckets - 1;
  double mass = distribution.total;  // of the tokens kept so far
  if (by_rank) {
    mass = 0;
    int32_t left = top_k;
    for (last_bucket = 0; counts_[last_bucket] < left; ++last_bucket) {
      left -= counts_[last_bucket];
      mass += masses_[last_bucket];
    }
    cut = cut_by_rank(gather(last_bucket, cut), static_cast<size_t>(left), mass);
  }
  if (top_p < 1.0F) {
    double left = static_cast<double>(top_p) * mass;
    size_t bucket = 0;
    for (; bucket < last_bucket && masses_[bucket] < left; ++bucket) left -= masses_[bucket];
    // Rounding may leave a crumb of `left` behind the last token with any mass.
    while (counts_[bucket] == 0) --bucket;
    cut = cut_by_mass(gather(bucket, cut), left);
  }
  return cut;
}

}  // namespace puna::engine
