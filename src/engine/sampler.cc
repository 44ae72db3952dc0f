// SPDX-License-Identifier: Apache-2.0
#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/check.h"
#include "engine/philox.h"

namespace puna::engine {
namespace {

constexpr uint32_t kInPrompt = 1U << 31;  // in occurrences_; the lower bits count the output

bool has_penalties(const SamplingParams& params) {
  return params.repetition_penalty != 1.0F || params.frequency_penalty != 0.0F ||
         params.presence_penalty != 0.0F;
}

void check_ranges(const SamplingParams& params) {
  CHECK(params.temperature >= 0.0F && params.temperature <= 100.0F);
  CHECK(params.top_p > 0.0F && params.top_p <= 1.0F);
  CHECK(params.min_p >= 0.0F && params.min_p <= 1.0F);
  CHECK(params.repetition_penalty > 0.0F);
  CHECK_LE(params.top_logprobs, kMaxTopLogprobs);
}

}  // namespace

Sampler::Sampler(int32_t vocab_size, std::string_view isa)
    : vocab_size_(static_cast<size_t>(vocab_size)),
      passes_(&softmax_passes(isa)),
      probabilities_(padded_to_chunks(vocab_size_)),
      chunk_maxima_(chunks_of(vocab_size_)),
      chunk_sums_(chunk_maxima_.size()),
      occurrences_(vocab_size_),
      cut_finder_(vocab_size, *passes_) {
  CHECK_GT(vocab_size, 0);
}

void Sampler::sample(std::span<float> logits, const BatchItem& item, SampledToken& out) {
  CHECK_EQ(logits.size(), vocab_size_);
  const SamplingParams& params = *item.sampling;
  check_ranges(params);
  if (has_penalties(params)) apply_penalties(logits, item);
  for (const auto& [id, bias] : params.logit_bias) logits[static_cast<size_t>(id)] += bias;
  for (TokenId id : item.banned) logits[static_cast<size_t>(id)] = kMinusInfinity;

  passes_->chunk_maxima(logits.data(), vocab_size_, chunk_maxima_.data());
  largest_ = *std::max_element(chunk_maxima_.begin(), chunk_maxima_.end());
  out.num_top = 0;
  out.logprob = 0.0F;
  if (largest_ == kMinusInfinity) {
    out.token = lowest_allowed(item.banned);
    if (params.top_logprobs >= 0) out.logprob = std::numeric_limits<float>::lowest();
    return;
  }
  double log_total = 0.0;  // of the distribution that logprobs are read from
  if (params.top_logprobs >= 0) {
    fill_probabilities(logits, 1.0F);
    log_total = std::log(total_);
  }
  if (params.top_logprobs > 0) report_logprobs(logits, params.top_logprobs, out);
  out.token = params.temperature < kGreedyTemperature ? best_token(logits)
                                                      : draw(logits, params, item.history.size());
  if (params.top_logprobs < 0) return;
  const auto logprob = [&](TokenId id) {
    const float value = clean_logit(logits[static_cast<size_t>(id)]);
    return static_cast<float>(static_cast<double>(value) - static_cast<double>(largest_) -
                              log_total);
  };
  out.logprob = logprob(out.token);
  for (int32_t i = 0; i < out.num_top; ++i) {
    TokenLogprob& top = out.top[static_cast<size_t>(i)];
    top.logprob = logprob(top.token);
  }
}

// Repetition penalises every token of the history, frequency and presence those of the output. Two
// walks over the history, so that the cost does not grow with the vocabulary.
void Sampler::apply_penalties(std::span<float> logits, const BatchItem& item) {
  const SamplingParams& params = *item.sampling;
  const auto prompt = static_cast<size_t>(item.prompt_tokens);
  for (size_t i = 0; i < item.history.size(); ++i) {
    uint32_t& seen = occurrences_[static_cast<size_t>(item.history[i])];
    seen = i < prompt ? seen | kInPrompt : seen + 1;
  }
  for (TokenId id : item.history) {
    uint32_t& seen = occurrences_[static_cast<size_t>(id)];
    if (seen == 0) continue;  // done already
    const uint32_t in_output = seen & ~kInPrompt;
    float& logit = logits[static_cast<size_t>(id)];
    logit = logit > 0.0F ? logit / params.repetition_penalty : logit * params.repetition_penalty;
    if (in_output > 0) {
      logit -= params.frequency_penalty * static_cast<float>(in_output) + params.presence_penalty;
    }
    seen = 0;
  }
}

// When no token has a finite logit: the lowest id that is not banned (0 if all are).
TokenId Sampler::lowest_allowed(std::span<const TokenId> banned) {
  for (TokenId id : banned) occurrences_[static_cast<size_t>(id)] = 1;
  const auto allowed = std::find(occurrences_.begin(), occurrences_.end(), 0U);
  for (TokenId id : banned) occurrences_[static_cast<size_t>(id)] = 0;
  return allowed == occurrences_.end() ? 0 : static_cast<TokenId>(allowed - occurrences_.begin());
}

TokenId Sampler::best_token(std::span<const float> logits) const {
  const auto chunk = std::find(chunk_maxima_.begin(), chunk_maxima_.end(), largest_);
  auto id = static_cast<size_t>(chunk - chunk_maxima_.begin()) * kSumChunk;
  while (clean_logit(logits[id]) != largest_) ++id;
  return static_cast<TokenId>(id);
}

void Sampler::fill_probabilities(std::span<const float> logits, float scale) {
  passes_->exponentials(logits.data(), vocab_size_, largest_, scale, probabilities_.data());
  passes_->chunk_sums(probabilities_.data(), chunk_sums_.size(), chunk_sums_.data());
  total_ = std::accumulate(chunk_sums_.begin(), chunk_sums_.end(), 0.0);
}

// The ids of the best tokens; an insertion sort, as few tokens make it past the last of `num_top`.
void Sampler::report_logprobs(std::span<const float> logits, int32_t num_top,
                              SampledToken& out) const {
  const auto logit_of = [&](size_t id) { return clean_logit(logits[id]); };
  float last = kMinusInfinity;  // a token must beat this
  for (size_t id = 0; id < vocab_size_; ++id) {
    if (id % kSumChunk == 0 && !(chunk_maxima_[id / kSumChunk] > last)) {
      id += kSumChunk - 1;
      continue;
    }
    const float logit = logit_of(id);
    if (!(logit > last)) continue;
    if (out.num_top < num_top) ++out.num_top;
    auto place = static_cast<size_t>(out.num_top - 1);
    for (; place > 0; --place) {
      if (logit_of(static_cast<size_t>(out.top[place - 1].token)) >= logit) break;
      out.top[place] = out.top[place - 1];
    }
    out.top[place].token = static_cast<TokenId>(id);
    if (out.num_top == num_top) {
      last = logit_of(static_cast<size_t>(out.top[static_cast<size_t>(num_top - 1)].token));
    }
  }
}

// Clears the probabilities that top_k, top_p and min_p leave out.
void Sampler::truncate(std::span<const float> logits, const SamplingParams& params, float scale) {
  const bool by_rank = params.top_k > 0 && static_cast<size_t>(params.top_k) < vocab_size_;
  if (by_rank || params.top_p < 1.0F) {
    const TokenCut cut =
        cut_finder_.find({.logits = logits,
                          .chunk_maxima = chunk_maxima_,
                          .probabilities = std::span(probabilities_).first(vocab_size_),
                          .largest = largest_,
                          .scale = scale,
                          .total = total_},
                         params.top_k, params.top_p);
    passes_->clear_behind(logits.data(), vocab_size_, cut.logit, static_cast<size_t>(cut.id),
                          probabilities_.data());
  }
  // The best token's probability is 1 here.
  if (params.min_p > 0.0F) {
    passes_->clear_below(params.min_p, chunk_sums_.size(), probabilities_.data());
  }
  passes_->chunk_sums(probabilities_.data(), chunk_sums_.size(), chunk_sums_.data());
  total_ = std::accumulate(chunk_sums_.begin(), chunk_sums_.end(), 0.0);
}

TokenId Sampler::draw(std::span<const float> logits, const SamplingParams& params,
                      uint64_t position) {
  const float scale = 1.0F / params.temperature;
  fill_probabilities(logits, scale);
  truncate(logits, params, scale);
  double left = uniform_at(params.seed, position) * total_;
  size_t chunk = 0;
  while (chunk + 1 < chunk_sums_.size() && left >= chunk_sums_[chunk]) left -= chunk_sums_[chunk++];
  while (chunk_sums_[chunk] == 0.0) --chunk;  // rounding: `left` may outlast the last mass
  size_t last = 0;
  for (size_t i = chunk * kSumChunk; i < (chunk + 1) * kSumChunk; ++i) {
    if (probabilities_[i] == 0.0F) continue;
    last = i;
    left -= static_cast<double>(probabilities_[i]);
    if (left < 0) break;
  }
  return static_cast<TokenId>(last);
}

}  // namespace puna::engine
