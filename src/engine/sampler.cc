// SPDX-License-Identifier: Apache-2.0
#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "engine/philox.h"
#include "engine/softmax.h"

namespace puna::engine {
namespace {

// Below this the distribution is one token for any logits that differ at all.
constexpr float kGreedyTemperature = 1e-5F;
constexpr float kLargest = std::numeric_limits<float>::max();
constexpr uint32_t kInPrompt = 1U << 31;  // in occurrences_; the lower bits count the output

bool has_penalties(const SamplingParams& params) {
  return params.repetition_penalty != 1.0F || params.frequency_penalty != 0.0F ||
         params.presence_penalty != 0.0F;
}

float clean(float logit) {
  const float number = logit == logit ? logit : kMinusInfinity;
  return number < kLargest ? number : kLargest;
}

void check_ranges(const SamplingParams& params) {
  CHECK(params.temperature >= 0.0F && params.temperature <= 100.0F);
  CHECK(params.top_p > 0.0F && params.top_p <= 1.0F);
  CHECK(params.min_p >= 0.0F && params.min_p <= 1.0F);
  CHECK(params.repetition_penalty > 0.0F);
  CHECK_LE(params.top_logprobs, kMaxTopLogprobs);
}

}  // namespace

Sampler::Sampler(int32_t vocab_size)
    : vocab_size_(static_cast<size_t>(vocab_size)),
      values_(padded_to_chunks(vocab_size_), kMinusInfinity),
      probabilities_(values_.size()),
      chunk_sums_(values_.size() / kSumChunk),
      occurrences_(vocab_size_),
      cut_finder_(vocab_size) {
  CHECK_GT(vocab_size, 0);
}

void Sampler::sample(std::span<float> logits, const BatchItem& item, SampledToken& out) {
  CHECK_EQ(logits.size(), vocab_size_);
  const SamplingParams& params = *item.sampling;
  check_ranges(params);
  if (has_penalties(params)) apply_penalties(logits, item);
  for (const auto& [id, bias] : params.logit_bias) logits[static_cast<size_t>(id)] += bias;
  for (TokenId id : item.banned) logits[static_cast<size_t>(id)] = kMinusInfinity;

  load_values(logits);
  out.num_top = 0;
  out.logprob = 0.0F;
  if (largest_ == kMinusInfinity) {
    out.token = lowest_allowed(item.banned);
    if (params.top_logprobs >= 0) out.logprob = std::numeric_limits<float>::lowest();
    return;
  }
  const double log_total = params.top_logprobs >= 0 ? log_sum_exp() : 0.0;
  if (params.top_logprobs > 0) report_logprobs(logits, params.top_logprobs, out);
  out.token =
      params.temperature < kGreedyTemperature ? best_token() : draw(params, item.history.size());
  if (params.top_logprobs < 0) return;
  const auto logprob = [&](TokenId id) {
    const float value = clean(logits[static_cast<size_t>(id)]);
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

void Sampler::load_values(std::span<const float> logits) {
  for (size_t i = 0; i < logits.size(); ++i) values_[i] = clean(logits[i]);
  largest_ = kMinusInfinity;
  for (size_t i = 0; i < values_.size(); i += kSumChunk) {
    largest_ = std::max(largest_, max_chunk(values_.data() + i));
  }
}

TokenId Sampler::best_token() const {
  const auto best = std::find(values_.begin(), values_.end(), largest_);
  return static_cast<TokenId>(best - values_.begin());
}

// Of the values relative to the largest one.
double Sampler::log_sum_exp() {
  double total = 0;
  float shifted[kSumChunk];
  float powers[kSumChunk];
  for (size_t first = 0; first < values_.size(); first += kSumChunk) {
    for (size_t i = 0; i < kSumChunk; ++i) shifted[i] = values_[first + i] - largest_;
    exp_chunk(shifted, powers);
    total += static_cast<double>(sum_chunk(powers));
  }
  return std::log(total);
}

// The ids of the best tokens; an insertion sort, as few tokens make it past the last of `num_top`.
void Sampler::report_logprobs(std::span<const float> logits, int32_t num_top, SampledToken& out) {
  const auto value_of = [&](const TokenLogprob& top) {
    return clean(logits[static_cast<size_t>(top.token)]);
  };
  float last = kMinusInfinity;  // a token must beat this
  for (size_t id = 0; id < vocab_size_; ++id) {
    if (!(values_[id] > last)) continue;
    if (out.num_top < num_top) ++out.num_top;
    auto place = static_cast<size_t>(out.num_top - 1);
    for (; place > 0 && value_of(out.top[place - 1]) < values_[id]; --place) {
      out.top[place] = out.top[place - 1];
    }
    out.top[place].token = static_cast<TokenId>(id);
    if (out.num_top == num_top) last = value_of(out.top[static_cast<size_t>(num_top - 1)]);
  }
}

// Clears the probabilities that top_k, top_p and min_p leave out.
void Sampler::truncate(const SamplingParams& params) {
  const bool by_rank = params.top_k > 0 && static_cast<size_t>(params.top_k) < vocab_size_;
  if (by_rank || params.top_p < 1.0F) {
    const TokenCut cut =
        cut_finder_.find(std::span(values_).first(vocab_size_),
                         std::span(probabilities_).first(vocab_size_), params.top_k, params.top_p);
    for (size_t i = 0; i < vocab_size_; ++i) {
      if (!cut.keeps(values_[i], static_cast<TokenId>(i))) probabilities_[i] = 0.0F;
    }
  }
  if (params.min_p <= 0.0F) return;  // the best token's probability is 1 here
  for (float& probability : probabilities_) {
    if (probability < params.min_p) probability = 0.0F;
  }
}

TokenId Sampler::draw(const SamplingParams& params, uint64_t position) {
  const float scale = 1.0F / params.temperature;
  for (float& value : values_) value = (value - largest_) * scale;
  for (size_t i = 0; i < values_.size(); i += kSumChunk) {
    exp_chunk(values_.data() + i, probabilities_.data() + i);
  }
  truncate(params);
  double total = 0;
  for (size_t chunk = 0; chunk < chunk_sums_.size(); ++chunk) {
    chunk_sums_[chunk] = static_cast<double>(sum_chunk(probabilities_.data() + chunk * kSumChunk));
    total += chunk_sums_[chunk];
  }
  double left = uniform_at(params.seed, position) * total;
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
