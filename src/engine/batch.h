// SPDX-License-Identifier: Apache-2.0
// One step's work, as the scheduler plans it and a backend runs it. A Batch points into engine
// memory that stays valid and unchanged until the backend's collect() for that step returned.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/request.h"
#include "kv/block_id.h"
#include "model/tokenizer.h"

namespace puna::engine {

using model::TokenId;

// Some consecutive positions of one sequence: a chunk of a prompt, or one decode token.
struct BatchItem {
  // Stable index of the sequence while it lives, < max_num_seqs: where a device backend keeps the
  // sequence's own state (last token, block table, sampling state).
  int32_t slot = 0;
  int32_t first_position = 0;
  int32_t num_tokens = 0;
  // num_tokens ids, or empty when num_tokens is 1 and the token is the one that the previous step
  // samples for this slot: lets a device backend run one step ahead of the host.
  std::span<const TokenId> tokens;
  // Physical blocks of positions 0 … first_position + num_tokens - 1. An entry may name another
  // block than in an earlier step: equal full blocks of two sequences become one
  // (kv/prefix_cache.h).
  std::span<const kv::BlockId> block_table;
  // True when the last position's logits are sampled (decode, or the last chunk of a prompt).
  bool sample = false;
  // Prompt and output so far, [0, first_position + num_tokens): penalties count over it.
  std::span<const TokenId> history;
  // Below: only where `sample` is true.
  const SamplingParams* sampling = nullptr;
  int32_t prompt_tokens = 0;        // how many of `history` are prompt
  std::span<const TokenId> banned;  // never sampled in this step (min_tokens)
};

struct Batch {
  uint64_t step = 0;
  std::vector<BatchItem> items;  // capacity max_num_seqs: no allocation in the step loop
  int32_t num_tokens = 0;        // sum over items
  int32_t num_samples = 0;       // items with `sample`
};

struct SampledToken {
  TokenId token = -1;
  float logprob = 0.0F;  // 0 unless asked for
  int32_t num_top = 0;
  std::array<TokenLogprob, kMaxTopLogprobs> top;
};

}  // namespace puna::engine
