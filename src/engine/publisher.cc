// SPDX-License-Identifier: Apache-2.0
#include "engine/publisher.h"

#include <algorithm>

#include "base/check.h"
#include "engine/planted_bug.h"

namespace puna::engine {
Publisher::Publisher(EngineStats& stats, size_t max_wakers) : stats_(stats) {
  wakers_.reserve(max_wakers);
}

bool Publisher::token(Sequence& sequence, const SampledToken& sampled, TimeNs now_ns) {
  CHECK_LT(sequence.tokens.size(), sequence.tokens.capacity());
  sequence.tokens.push_back(sampled.token);
  TokenEvent event{.token = sampled.token,
                   .logprob = sampled.logprob,
                   .finish = FinishReason::kNone,
                   .num_top = static_cast<int8_t>(sampled.num_top)};
  if (std::binary_search(sequence.stop_tokens.begin(), sequence.stop_tokens.end(), sampled.token)) {
    event.finish = FinishReason::kStop;
    event.is_stop_token = true;
  } else {
    if (sequence.text) sequence.text->follow(sampled.token);
    if (sequence.text && sequence.text->stopped()) {
      event.finish = FinishReason::kStop;
    } else if (sequence.output_tokens() == sequence.stop.max_tokens) {
      event.finish = FinishReason::kLength;
    }
  }
  observe_token(sequence, now_ns);
  if (event.finish != FinishReason::kNone) observe_end(sequence, event.finish, now_ns);
  sequence.channel->push(event, sampled.top.data());
  if (event.finish != FinishReason::kNone && commits(PlantedBug::kTokenAfterEnd)) {
    sequence.channel->push({.token = 0}, nullptr);
  }
  remember_waker(sequence.channel->waker());
  return event.finish != FinishReason::kNone;
}

void Publisher::end(Sequence& sequence, FinishReason reason, TimeNs now_ns) {
  observe_end(sequence, reason, now_ns);
  sequence.channel->push({.finish = reason}, nullptr);
  remember_waker(sequence.channel->waker());
}

void Publisher::observe_token(Sequence& sequence, TimeNs now_ns) {
  RequestFacts& facts = sequence.channel->facts();
  stats_.generation_tokens.add();
  if (sequence.output_tokens() == 1) {
    facts.first_token_ns = now_ns;
    stats_.prompt_tokens.add(static_cast<uint64_t>(sequence.prompt_tokens));
    stats_.time_to_first_token_s.observe(to_seconds(now_ns - facts.submitted_ns));
    if (facts.quoted_ttft_p95_ns > 0) {
      stats_.ttft_over_quote.observe(static_cast<double>(now_ns - facts.submitted_ns) /
                                     static_cast<double>(facts.quoted_ttft_p95_ns));
    }
    stats_.prefill_time_s.observe(to_seconds(now_ns - facts.first_scheduled_ns));
  } else {
    stats_.inter_token_latency_s.observe(to_seconds(now_ns - sequence.last_token_ns));
  }
  sequence.last_token_ns = now_ns;
}

void Publisher::observe_end(Sequence& sequence, FinishReason reason, TimeNs now_ns) {
  RequestFacts& facts = sequence.channel->facts();
  facts.finished_ns = now_ns;
  switch (reason) {
    case FinishReason::kNone:
      CHECK(false);
      break;
    case FinishReason::kStop:
      stats_.finished_stop.add();
      break;
    case FinishReason::kLength:
      stats_.finished_length.add();
      break;
    case FinishReason::kCancelled:
      stats_.finished_cancelled.add();
      return;
    case FinishReason::kDeadline:
      stats_.finished_deadline.add();
      return;
    case FinishReason::kError:
      stats_.finished_error.add();
      return;
  }
  stats_.e2e_latency_s.observe(to_seconds(now_ns - facts.submitted_ns));
  stats_.decode_time_s.observe(to_seconds(now_ns - facts.first_token_ns));
  stats_.request_prompt_tokens.observe(static_cast<double>(sequence.prompt_tokens));
  stats_.request_generation_tokens.observe(static_cast<double>(sequence.output_tokens()));
}

void Publisher::remember_waker(Waker* waker) {
  if (waker == nullptr || std::find(wakers_.begin(), wakers_.end(), waker) != wakers_.end()) return;
  CHECK_LT(wakers_.size(), wakers_.capacity());
  wakers_.push_back(waker);
}

void Publisher::wake() {
  for (Waker* waker : wakers_) {
    if (commits(PlantedBug::kLostWakeUp)) continue;
    waker->wake();
  }
  wakers_.clear();
}

}  // namespace puna::engine
