// SPDX-License-Identifier: Apache-2.0
// Whether a request is taken, decided on the thread that brings it, in microseconds and without
// waiting for the engine: from counters of what waits, measured drain rates, and what the engine
// published after its last step (Load).
//
//   Claim claim = admission.claim(rank, requests, tokens);     // its place in the queue
//   if (auto refusal = admission.judge(request, claim, estimate, now)) admission.give_back(claim);
#pragma once

#include <array>
#include <atomic>
#include <cstring>
#include <memory>

#include "engine/degrade.h"
#include "engine/drain_rate.h"
#include "engine/engine.h"
#include "engine/fair_share.h"
#include "engine/latency_model.h"
#include "engine/sequence.h"
#include "engine/start_forecast.h"

namespace puna::engine {

// A value that one thread publishes and any thread reads: each word is whole, but words may stem
// from two neighbouring steps, which an estimate can bear.
template <typename T>
class Published {
 public:
  void store(const T& value) {
    std::array<uint64_t, kWords> words;
    std::memcpy(words.data(), &value, sizeof(T));
    for (size_t i = 0; i < kWords; ++i) words_[i].store(words[i], std::memory_order_relaxed);
  }
  T load() const {
    std::array<uint64_t, kWords> words;
    for (size_t i = 0; i < kWords; ++i) words[i] = words_[i].load(std::memory_order_relaxed);
    T value;
    std::memcpy(static_cast<void*>(&value), words.data(), sizeof(T));
    return value;
  }

 private:
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) % sizeof(uint64_t) == 0);
  static constexpr size_t kWords = sizeof(T) / sizeof(uint64_t);
  std::array<std::atomic<uint64_t>, kWords> words_ = {};
};

struct Load {
  StepTimes times;
  StepShape decodes;           // the rows that run, as if all decoded
  int64_t prompt_backlog = 0;  // tokens of started prompts that are not computed yet
  int64_t free_slots = 0;
  int64_t free_blocks = 0;       // available and not promised
  double mean_output = 0;        // tokens of recent answers; 0: none yet
  double tpot_target_s = 0;      // the tightest of those that run; 0: none
  double ttft_p50_factor = 1.0;  // measured over estimated time to first token
  double ttft_p95_factor = 1.5;
  TimeNs published_ns = 0;
  StartForecast starts;     // of those that wait, from published_ns on
  double starts_per_s = 0;  // measured, of all classes; 0: none yet

  // From `now_ns` on, until so many of those that wait now will have started; negative: no idea.
  double seconds_until_starts(int64_t count, TimeNs now_ns) const;
  // Likewise, until the last of them has the prompts before its own computed.
  double seconds_until_prompt(int64_t count, TimeNs now_ns) const;
  // Rows that will run then, the last of them not among them.
  double rows_at_start(int64_t count) const;

 private:
  double seconds_until(const std::array<double, kForecastStarts>& times_s, int64_t count,
                       TimeNs now_ns) const;
};
StepOutlook step_outlook(const Load& load, const EngineConfig& config, const BackendLimits& limits);

struct Claim {
  size_t rank = 0;  // of the class
  int32_t tenant = 0;
  int64_t requests = 0;
  int64_t tokens = 0;
  // Before it: all that wait, its own class, and those that start before it.
  int64_t all_requests = 0;
  int64_t all_tokens = 0;
  int64_t class_requests = 0;
  int64_t class_tokens = 0;
  int64_t tokens_ahead = 0;
  int64_t requests_ahead = 0;
  // Of its tenant: in its class, in all classes, and how many starts of the class one of the
  // tenant's takes when all tenants that wait there have their turns by weight.
  int64_t own_requests = 0;
  int64_t tenant_requests = 0;
  int64_t tenant_tokens = 0;
  double starts_per_turn = 1;
};

struct Estimate {
  bool known = false;  // false: nothing was measured yet
  double wait_s = 0;
  double ttft_s = 0;  // the model's, before factors
  double ttft_p50_s = 0;
  double ttft_p95_s = 0;
  double tpot_p50_s = 0;
  double tpot_p95_s = 0;
  double end_p50_s = 0;
  double end_p95_s = 0;
};

class Admission {
 public:
  Admission(const EngineConfig& config, const BackendLimits& limits);

  // Any thread.
  Claim claim(const Request& request, int64_t requests, int64_t tokens);
  void give_back(const Claim& claim);
  Claim look(const Request& request, int64_t requests, int64_t tokens) const;
  Estimate estimate(const Request& request, const Claim& claim, TimeNs now_ns) const;
  // Null: taken.
  std::unique_ptr<Refusal> judge(const Request& request, const Claim& claim,
                                 const Estimate& estimate, TimeNs now_ns) const;
  int64_t queued_requests(size_t rank) const { return classes_[rank].requests.load(kRelaxed); }
  int64_t queued_tokens(size_t rank) const { return classes_[rank].tokens.load(kRelaxed); }
  int64_t queued_requests() const;
  int64_t queued_tokens() const;
  double queue_fill(size_t rank) const;

  // Engine thread.
  void leave_queue(const Sequence& sequence);
  void note_started(const Sequence& sequence);  // counted until end_step()
  void end_step(TimeNs duration_ns);
  void publish(const Load& load, Rung rung);
  double starts_per_s() const;

 private:
  static constexpr auto kRelaxed = std::memory_order_relaxed;
  struct ClassQueue {
    std::atomic<int64_t> requests{0};  // taken, and never run yet
    std::atomic<int64_t> tokens{0};    // their prompts
    DrainRate drain_rate;
    int64_t started_requests = 0;  // that left the queue in this step
    int64_t started_tokens = 0;
  };

  // What waits of one tenant in one class.
  struct TenantQueue {
    std::atomic<int64_t> requests{0};
    std::atomic<int64_t> tokens{0};
  };

  const TenantQueue& tenant_queue(size_t rank, size_t tenant) const {
    return tenants_[rank * config_.tenants.size() + tenant];
  }
  TenantQueue& tenant_queue(size_t rank, size_t tenant) {
    return tenants_[rank * config_.tenants.size() + tenant];
  }
  void fill_ahead(Claim& claim) const;
  void fill_turns(Claim& claim) const;
  int64_t over_share(const Claim& claim) const;
  int64_t reserve(const Request& request) const;
  int64_t starts_until(const Claim& claim, int64_t blocks, const Load& load) const;
  double wait_for_share_s(const Claim& claim, int64_t over, TimeNs now_ns) const;
  std::unique_ptr<Refusal> queue_refusal(const Claim& claim, const Estimate& estimate,
                                         TimeNs now_ns) const;
  double places_free_in_s(const Claim& claim, int64_t requests, int64_t tokens,
                          int64_t class_tokens, TimeNs now_ns) const;
  std::unique_ptr<Refusal> target_refusal(const Request& request, const Estimate& estimate,
                                          TimeNs now_ns) const;

  const EngineConfig& config_;
  const BackendLimits& limits_;
  std::array<ClassQueue, kNumClasses> classes_;
  std::vector<TenantQueue> tenants_;  // [classes, tenants]
  double mean_weight_ = 1;            // of the tenants
  Published<Load> load_;
  std::atomic<Rung> rung_{Rung::kNone};
};

}  // namespace puna::engine
