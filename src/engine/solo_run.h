// SPDX-License-Identifier: Apache-2.0
// For tests: what a request must answer, by definition, without any engine: the NullBackend's
// logits, one Sampler, and the stop rules spelled out one by one.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "base/check.h"
#include "engine/null_backend.h"
#include "engine/request.h"
#include "engine/sampler.h"
#include "model/tokenizer.h"

namespace puna::engine {

// One token per byte, then Llama 3's 256 special tokens: 512 in all.
inline constexpr int32_t kTinyVocab = 512;
inline model::Tokenizer tiny_tokenizer() {
  static constexpr std::string_view kBase64 =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string ranks;
  for (size_t byte = 0; byte < 256; ++byte) {
    ranks += kBase64[byte >> 2];
    ranks += kBase64[(byte & 3) << 4];
    ranks += "== " + std::to_string(byte) + "\n";
  }
  Result<model::Tokenizer> tokenizer = model::Tokenizer::from_tiktoken(ranks);
  CHECK(tokenizer.ok());
  CHECK_EQ(tokenizer->vocab_size(), kTinyVocab);
  return std::move(tokenizer).value();
}

struct SoloAnswer {
  std::vector<TokenId> tokens;
  std::vector<float> logprobs;
  std::vector<std::vector<TokenLogprob>> top;
  FinishReason finish = FinishReason::kNone;
};

inline SoloAnswer solo_run(const Request& request, const model::Tokenizer& tokenizer,
                           int32_t vocab_size) {
  SoloAnswer answer;
  std::vector<TokenId> history = request.prompt;
  std::vector<TokenId> enders = request.stop.stop_token_ids;
  if (!request.stop.ignore_eos) {
    for (TokenId id : tokenizer.end_of_generation()) {
      if (id < vocab_size) enders.push_back(id);
    }
  }
  Sampler sampler(vocab_size);
  std::vector<float> logits(static_cast<size_t>(vocab_size));
  std::string text;
  while (answer.finish == FinishReason::kNone) {
    NullBackend::logits_after(history, logits);
    BatchItem item;
    item.sampling = &request.sampling;
    item.history = history;
    item.prompt_tokens = static_cast<int32_t>(request.prompt.size());
    if (static_cast<int32_t>(answer.tokens.size()) < request.stop.min_tokens) item.banned = enders;
    SampledToken sampled;
    sampler.sample(logits, item, sampled);
    history.push_back(sampled.token);
    answer.tokens.push_back(sampled.token);
    answer.logprobs.push_back(sampled.logprob);
    answer.top.emplace_back(sampled.top.begin(), sampled.top.begin() + sampled.num_top);
    if (!tokenizer.is_special(sampled.token)) text += tokenizer.token_bytes(sampled.token);
    const bool stop_string =
        std::any_of(request.stop.stop_strings.begin(), request.stop.stop_strings.end(),
                    [&](const std::string& stop) { return text.find(stop) != std::string::npos; });
    if (std::find(enders.begin(), enders.end(), sampled.token) != enders.end() || stop_string) {
      answer.finish = FinishReason::kStop;
    } else if (static_cast<int32_t>(answer.tokens.size()) == request.stop.max_tokens) {
      answer.finish = FinishReason::kLength;
    }
  }
  return answer;
}

}  // namespace puna::engine
