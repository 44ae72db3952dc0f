// SPDX-License-Identifier: Apache-2.0
// What a client asks of the engine, and how the answer comes back. A Request is built by an I/O
// thread, moved to the engine thread, and never changed after that. Its RequestChannel carries the
// tokens back: written by the engine thread only, read by one I/O thread only, sized at submission
// so that the engine never waits for a slow reader.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "engine/request_memory.h"
#include "model/tokenizer.h"

namespace puna::engine {

using model::TokenId;

inline constexpr int kMaxTopLogprobs = 20;  // OpenAI's limit
inline constexpr int kMaxStopStrings = 16;
inline constexpr int kMaxLogitBias = 1024;
inline constexpr int kMaxChoices = 128;  // n

// Ranges are checked where requests are parsed (api) and CHECKed by the sampler.
struct SamplingParams {
  float temperature = 1.0F;                                // [0, 100]; 0 is greedy
  int32_t top_k = 0;                                       // 0: off
  float top_p = 1.0F;                                      // (0, 1]
  float min_p = 0.0F;                                      // [0, 1]
  float repetition_penalty = 1.0F;                         // (0, 10]; over prompt and output
  float frequency_penalty = 0.0F;                          // [-2, 2]; over output
  float presence_penalty = 0.0F;                           // [-2, 2]; over output
  std::vector<std::pair<TokenId, float>> logit_bias = {};  // [-100, 100] each
  uint64_t seed = 0;                                       // the RNG is keyed by (seed, position)
  // -1: none. Else the sampled token's logprob and this many alternatives, of the distribution
  // after penalties and logit_bias, before temperature and truncation.
  int32_t top_logprobs = -1;
};

// What a request is worth to whom it keeps waiting. Order is priority: see ClassPolicy.
enum class RequestClass : uint8_t { kInteractive, kBatch, kBackground };
inline constexpr int kNumClasses = 3;

struct StopRules {
  int32_t max_tokens = 16;
  int32_t min_tokens = 0;                    // end-of-generation tokens are not sampled before
  std::vector<TokenId> stop_token_ids = {};  // besides the model's own
  std::vector<std::string> stop_strings = {};
  bool ignore_eos = false;
};

struct Request {
  std::string id = {};               // for logs
  std::vector<TokenId> prompt = {};  // not empty
  SamplingParams sampling = {};
  StopRules stop = {};
  uint64_t cache_salt = 0;  // prefix-cache tenant; requests share blocks only under the same salt
  RequestClass request_class = RequestClass::kInteractive;
  int32_t tenant = 0;         // index into EngineConfig::tenants
  TimeNs deadline_ns = 0;     // on the engine's clock; then the text so far is the answer. 0: none
  TimeNs ttft_target_ns = 0;  // from submission; refused when the model says it can't be. 0: none
  TimeNs tpot_target_ns = 0;  // between tokens; 0: the class's
  // False: stop.max_tokens is only the most that may come. The class's default is reserved, and the
  // rest is taken while there is room (else the request pauses; it never fails).
  bool max_tokens_given = true;
};

enum class FinishReason : uint8_t {
  kNone,       // still running
  kStop,       // end of generation, stop token or stop string
  kLength,     // max_tokens or the model's context
  kCancelled,  // the client left
  kDeadline,   // Request::deadline_ns passed: the tokens so far are the answer
  kError,      // the engine stopped (shutdown past the drain timeout)
};

struct TokenLogprob {
  TokenId token = -1;
  float logprob = 0.0F;
};

// One generated token, or the end without one (token = -1: cancelled, or the engine stopped).
struct TokenEvent {
  TokenId token = -1;
  float logprob = 0.0F;
  FinishReason finish = FinishReason::kNone;
  int8_t num_top = 0;  // entries in the channel's top-logprob table for this event
  // With kStop: this token itself ended the answer (end of generation, or a stop token), so it
  // counts as generated but is no part of the text. False when a stop string did: TextStream cuts
  // that.
  bool is_stop_token = false;
};

// Wakes the reader of channels: called by the engine thread at most once per step and Waker, after
// the step's events are visible. Must not block or allocate, and must outlive the engine: a reader
// can see its last event before the call. The API's writes to an eventfd.
class Waker {
 public:
  virtual ~Waker() = default;
  virtual void wake() noexcept = 0;
};

// Facts about a finished or running request, for usage and metrics. Written by the engine thread
// before the event that makes them interesting (release), read after it (acquire).
struct RequestFacts {
  int32_t cached_prompt_tokens = 0;
  TimeNs submitted_ns = 0;
  TimeNs first_scheduled_ns = 0;
  TimeNs first_token_ns = 0;
  TimeNs finished_ns = 0;
  int32_t preemptions = 0;
  // What was promised when it was taken; 0: nothing was measured yet.
  TimeNs quoted_ttft_p50_ns = 0;
  TimeNs quoted_ttft_p95_ns = 0;
  // The time ledger. Of a finished request: queue + prefill + decode + stall = finished -
  // submitted.
  TimeNs queue_ns = 0;      // until its first step
  TimeNs prefill_ns = 0;    // steps that computed its prompt
  TimeNs decode_ns = 0;     // steps that made its tokens
  TimeNs stall_ns = 0;      // others' prompts in those steps, steps without it, and pauses
  int64_t kv_block_ns = 0;  // blocks held × time; a shared block counts for each holder
};

// Single producer (engine), single consumer (I/O). Holds max_tokens + 1 events: push can't fail.
class RequestChannel {
 public:
  RequestChannel(int32_t max_events, int32_t top_logprobs, Waker* waker)
      : events_(static_cast<size_t>(max_events)),
        top_(top_logprobs > 0 ? static_cast<size_t>(max_events) * static_cast<size_t>(top_logprobs)
                              : 0),
        top_per_event_(top_logprobs > 0 ? static_cast<size_t>(top_logprobs) : 0),
        waker_(waker) {}

  // Engine thread. `top` has event.num_top entries.
  void push(const TokenEvent& event, const TokenLogprob* top) {
    const size_t index = written_.load(std::memory_order_relaxed);
    CHECK_LT(index, events_.size());
    events_[index] = event;
    for (size_t i = 0; i < static_cast<size_t>(event.num_top); ++i) {
      top_[index * top_per_event_ + i] = top[i];
    }
    written_.store(index + 1, std::memory_order_release);
  }
  // Before the first push: memory that is given back with the channel.
  void hold(MemoryClaim claim) { claim_ = std::move(claim); }
  RequestFacts& facts() { return facts_; }  // also I/O thread, after it saw an event
  Waker* waker() const { return waker_; }

  // I/O thread. The next unread event, or null; its alternatives until the next call.
  const TokenEvent* next() {
    if (read_ == written_.load(std::memory_order_acquire)) return nullptr;
    return &events_[read_++];
  }
  const TokenLogprob* top_of_last() const { return top_.data() + (read_ - 1) * top_per_event_; }

  // Any thread: the engine stops working on the request within one step and pushes kCancelled.
  void cancel() { cancelled_.store(true, std::memory_order_relaxed); }
  bool cancelled() const { return cancelled_.load(std::memory_order_relaxed); }

  size_t bytes() const {
    return events_.size() * sizeof(TokenEvent) + top_.size() * sizeof(TokenLogprob);
  }

 private:
  MemoryClaim claim_;
  std::vector<TokenEvent> events_;
  std::vector<TokenLogprob> top_;
  size_t top_per_event_;
  Waker* waker_;
  RequestFacts facts_;
  size_t read_ = 0;
  std::atomic<size_t> written_{0};
  std::atomic<bool> cancelled_{false};
};

}  // namespace puna::engine
