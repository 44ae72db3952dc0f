// SPDX-License-Identifier: Apache-2.0
#include "scenario.h"

#include <algorithm>

namespace puna::sim {

using engine::RequestClass;
using engine::TokenId;

namespace {

// 256 byte tokens and the special ones up to <|eot_id|>.
constexpr int32_t kWideVocab = 272;
constexpr int32_t kSmallVocab = 16;
constexpr uint64_t kWideOneIn = 32;

}  // namespace

Scenario::Scenario(uint64_t seed) : dice(seed) {
  const bool wide = dice.chance(kWideOneIn);
  make_backend(wide);
  make_engine();
  slow_readers = dice.chance(2);
  faults = dice.chance(2);
  impatient = dice.chance(2);
  calibrated = dice.chance(64);
  const int32_t room =
      std::min(backend.limits.max_model_len, backend.limits.num_blocks * kv::kBlockTokens);
  longest_prompt_ = std::min(room - 1, wide ? 200 : dice.between(4, 60));
  longest_output_ = std::min(room - 1, wide ? 120 : dice.between(2, 40));
  for (int i = dice.between(1, 4); i > 0; --i) {
    std::vector<TokenId>& prefix =
        prefixes_.emplace_back(dice.pick(static_cast<uint64_t>(longest_prompt_) + 1));
    for (TokenId& id : prefix) id = dice.between(0, backend.limits.vocab_size - 1);
  }
}

void Scenario::make_backend(bool wide) {
  backend.limits = {.num_blocks = dice.between(6, wide ? 66 : 24),
                    .max_num_seqs = dice.between(1, wide ? 12 : 6),
                    .max_batch_tokens = dice.between(1, wide ? 80 : 40),
                    .max_model_len = dice.between(40, wide ? 340 : 120),
                    .vocab_size = wide ? kWideVocab : kSmallVocab};
  backend.step_ns = dice.between(1, 5) * kNsPerMs;
  backend.decode_row_ns = static_cast<TimeNs>(dice.pick(200'000));
  backend.prefill_token_ns = 1 + static_cast<TimeNs>(dice.pick(50'000));
  if (!dice.chance(3)) {  // else paused ones are computed again
    backend.limits.num_host_blocks = dice.between(1, backend.limits.num_blocks);
    backend.block_copy_ns =
        1 + static_cast<TimeNs>(dice.pick(10'000'000));  // also slower than steps
  }
  decode_step_ns = backend.step_ns + backend.limits.max_num_seqs * backend.decode_row_ns;
}

void Scenario::make_engine() {
  const bool long_queue = dice.chance(4);
  engine.max_queued_requests = dice.between(1, long_queue ? 60 : 20);
  engine.max_queued_tokens = dice.between(1, long_queue ? 20'000 : 2000);
  num_classes_ = dice.between(1, engine::kNumClasses);
  engine.prefill_chunk_tokens = dice.between(1, 70);
  engine.prefix_cache = !dice.chance(8);
  engine.model_digest = dice.pick(3);
  engine.chunk_sizing = !dice.chance(4);
  double share = 1.0;
  for (engine::ClassPolicy& policy : engine.classes) {
    if (dice.chance(4)) policy.max_queued_tokens = dice.between(20, 400);
    policy.max_queue_time_ns = dice.chance(2) ? 0 : dice.between(5, 2000) * kNsPerMs;
    policy.max_output_tokens = dice.chance(6) ? dice.between(1, 20) : 0;
    policy.default_output_tokens = dice.between(1, 24);
    policy.tpot_target_ns = dice.chance(3) ? 0 : dice.between(2, 20) * kNsPerMs;
    if (dice.chance(3)) share *= 0.1 * dice.between(2, 9);
    policy.kv_share = share;
  }
  engine.tenants.clear();
  for (int i = dice.between(1, 3); i > 0; --i) {
    engine.tenants.push_back({.name = std::to_string(i), .weight = 0.5 * dice.between(1, 6)});
  }
}

engine::SamplingParams Scenario::make_sampling() {
  const int32_t vocab = backend.limits.vocab_size;
  engine::SamplingParams made;
  made.seed = dice.pick(1000);
  made.temperature = 0.6F * static_cast<float>(dice.pick(4));
  if (dice.chance(2)) return made;
  made.top_k = dice.chance(2) ? 0 : dice.between(1, vocab + 10);
  made.top_p = dice.chance(2) ? 1.0F : 0.05F + 0.01F * static_cast<float>(dice.pick(90));
  made.min_p = dice.chance(2) ? 0.0F : 0.002F * static_cast<float>(dice.pick(100));
  if (dice.chance(3)) made.repetition_penalty = 0.8F + 0.1F * static_cast<float>(dice.pick(10));
  if (dice.chance(3)) made.frequency_penalty = 0.5F * static_cast<float>(dice.pick(8)) - 2.0F;
  if (dice.chance(3)) made.presence_penalty = 0.5F * static_cast<float>(dice.pick(8)) - 2.0F;
  if (dice.chance(4)) made.logit_bias = {{dice.between(0, vocab - 1), 3.0F}};
  if (dice.chance(4)) made.top_logprobs = dice.between(0, 20);
  return made;
}

engine::StopRules Scenario::make_stop() {
  engine::StopRules stop;
  stop.max_tokens = dice.between(1, dice.chance(4) ? longest_output_ : longest_output_ / 3 + 1);
  stop.min_tokens = dice.chance(4) ? dice.between(0, stop.max_tokens) : 0;
  stop.ignore_eos = dice.chance(3);
  const int32_t bytes = std::min(backend.limits.vocab_size, 256);
  if (dice.chance(6)) stop.stop_token_ids = {dice.between(0, bytes - 1)};
  if (dice.chance(8)) {
    const auto letter = [&] {
      return static_cast<char>(dice.between(0, std::min(bytes, 128) - 1));
    };
    stop.stop_strings = {std::string(1, letter()), std::string{letter(), letter()}};
  }
  return stop;
}

// Into the context and the pool.
void Scenario::fit(engine::Request& request) {
  const int32_t room =
      std::min(backend.limits.max_model_len, backend.limits.num_blocks * kv::kBlockTokens);
  if (request.prompt.size() >= static_cast<size_t>(room)) {
    request.prompt.resize(static_cast<size_t>(room) - 1);
  }
  request.stop.max_tokens =
      std::min(request.stop.max_tokens, room - static_cast<int32_t>(request.prompt.size()));
  request.stop.min_tokens = std::min(request.stop.min_tokens, request.stop.max_tokens);
}

engine::Request Scenario::make_request(TimeNs now_ns) {
  engine::Request made;
  made.prompt = prefixes_[dice.pick(prefixes_.size())];
  made.prompt.resize(dice.pick(made.prompt.size() + 1));
  for (int i = dice.between(1, dice.chance(3) ? longest_prompt_ : 8); i > 0; --i) {
    made.prompt.push_back(dice.between(0, backend.limits.vocab_size - 1));
  }
  made.sampling = make_sampling();
  made.stop = make_stop();
  made.cache_salt = dice.pick(3);
  made.request_class = static_cast<RequestClass>(dice.between(0, num_classes_ - 1));
  made.tenant = static_cast<int32_t>(dice.pick(engine.tenants.size()));
  made.max_tokens_given = !dice.chance(4);
  if (!made.max_tokens_given) made.stop.max_tokens += longest_output_;
  if (impatient && dice.chance(6))
    made.deadline_ns = now_ns + decode_step_ns * dice.between(1, 150);
  if (impatient && dice.chance(12)) made.ttft_target_ns = decode_step_ns * dice.between(1, 60);
  if (dice.chance(12)) made.tpot_target_ns = dice.between(1, 30) * kNsPerMs;
  if (!dice.chance(40)) fit(made);  // else it may be too long, and must be called impossible
  return made;
}

int32_t Scenario::most_output(const engine::Request& request) const {
  const auto prompt = static_cast<int64_t>(request.prompt.size());
  const int32_t cap = engine.classes[static_cast<size_t>(request.request_class)].max_output_tokens;
  int64_t output = request.stop.max_tokens;
  if (cap > 0) output = std::min<int64_t>(output, cap);
  const int64_t room = std::min<int64_t>(backend.limits.max_model_len,
                                         int64_t{backend.limits.num_blocks} * kv::kBlockTokens);
  if (!request.max_tokens_given) output = std::clamp<int64_t>(room - prompt, 1, output);
  const bool possible = prompt + output <= room && request.stop.min_tokens <= output;
  return possible ? static_cast<int32_t>(output) : 0;
}

}  // namespace puna::sim
