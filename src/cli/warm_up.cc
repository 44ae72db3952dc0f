// SPDX-License-Identifier: Apache-2.0
#include "cli/warm_up.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "base/checked_math.h"
#include "engine/batch.h"
#include "kv/block_id.h"

namespace puna::cli {
namespace {

// Everything that a sampler can be asked for at once.
engine::SamplingParams busy_sampling() {
  engine::SamplingParams sampling;
  sampling.temperature = 0.8F;
  sampling.top_k = 50;
  sampling.top_p = 0.9F;
  sampling.min_p = 0.01F;
  sampling.repetition_penalty = 1.1F;
  sampling.frequency_penalty = 0.1F;
  sampling.presence_penalty = 0.1F;
  sampling.top_logprobs = engine::kMaxTopLogprobs;
  return sampling;
}

// One step of `tokens` prompt tokens, spread over as many sequences as there may be.
void run_step(engine::Backend& backend, int32_t tokens, uint64_t step) {
  const engine::BackendLimits& limits = backend.limits();
  const int32_t longest =
      std::min(static_cast<int32_t>(ceil_div(tokens, limits.max_num_seqs)), limits.max_model_len);
  const int32_t blocks = kv::blocks_for_tokens(longest);
  std::vector<kv::BlockId> block_ids(static_cast<size_t>(limits.num_blocks));
  std::iota(block_ids.begin(), block_ids.end(), 0);
  const std::vector<engine::TokenId> prompt(static_cast<size_t>(longest), 0);
  const engine::SamplingParams sampling = busy_sampling();

  engine::Batch batch;
  batch.step = step;
  for (int32_t slot = 0; slot < limits.max_num_seqs; ++slot) {
    if (batch.num_tokens == tokens || (slot + 1) * blocks > limits.num_blocks) break;
    engine::BatchItem item;
    item.slot = slot;
    item.num_tokens = std::min(longest, tokens - batch.num_tokens);
    item.tokens = std::span(prompt).first(static_cast<size_t>(item.num_tokens));
    item.block_table =
        std::span(block_ids).subspan(static_cast<size_t>(slot) * static_cast<size_t>(blocks),
                                     static_cast<size_t>(kv::blocks_for_tokens(item.num_tokens)));
    item.sample = true;
    item.sampling = &sampling;
    item.history = item.tokens;
    item.prompt_tokens = item.num_tokens;
    batch.items.push_back(item);
    batch.num_tokens += item.num_tokens;
    ++batch.num_samples;
  }
  backend.start(batch);
  backend.collect();
}

}  // namespace

int32_t warm_up(engine::Backend& backend, const Clock& clock, TimeNs budget_ns) {
  const int32_t largest = backend.limits().max_batch_tokens;
  const TimeNs end = clock.now_ns() + budget_ns;
  int32_t done = 0;
  uint64_t step = 0;
  for (int32_t tokens = 1; done < largest; tokens = std::min(tokens * 2, largest)) {
    const TimeNs before = clock.now_ns();
    run_step(backend, tokens, step++);
    const TimeNs after = clock.now_ns();
    done = tokens;
    if (after + 2 * (after - before) > end) break;
  }
  return done;
}

}  // namespace puna::cli
