// SPDX-License-Identifier: Apache-2.0
// Open-loop clients that offer several times what an engine over a NullBackend can do, in virtual
// time and also in the middle of steps; every refusal is followed until its request would have been
// taken.
//
//   OverloadRun run({.factor = 10}, seed);
//   run.run(20);                                // seconds
//   EXPECT_LE(run.median_error(), 0.3);
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <random>

#include "engine/engine.h"
#include "engine/null_backend.h"
#include "engine/solo_run.h"

namespace puna::sim {

using engine::Request;

inline constexpr size_t kMostFollowed = 20;
inline constexpr double kLongestWaitS =
    2;  // a request is not followed for longer, and its error counts

// Steps of a NullBackend during which something else can happen: time passes from one moment of
// `happenings` to the next.
class InterruptedBackend final : public engine::Backend {
 public:
  InterruptedBackend(const engine::NullBackendConfig& config, VirtualClock& clock)
      : backend_(config, &step_clock_), clock_(clock) {}

  std::string_view name() const override { return backend_.name(); }
  const engine::BackendLimits& limits() const override { return backend_.limits(); }
  void start(const engine::Batch& batch) override {
    began();
    const TimeNs before_ns = step_clock_.now_ns();
    backend_.start(batch);
    pass(step_clock_.now_ns() - before_ns);
  }
  std::span<const engine::SampledToken> collect() override { return backend_.collect(); }

  void pass(TimeNs time_ns) {
    const TimeNs end_ns = clock_.now_ns() + time_ns;
    while (next_ns() <= end_ns) {
      clock_.advance(std::max<TimeNs>(0, next_ns() - clock_.now_ns()));
      happen();
    }
    clock_.advance(end_ns - clock_.now_ns());
  }

  std::function<TimeNs()> next_ns;
  std::function<void()> happen;
  std::function<void()> began;  // a step: who waited may have left the queue

 private:
  VirtualClock step_clock_;
  engine::NullBackend backend_;
  VirtualClock& clock_;
};

struct Overload {
  int32_t max_num_seqs = 8;
  int32_t max_queued_requests = 16;
  int32_t num_blocks = 400;
  std::pair<int32_t, int32_t> prompt = {32, 96};
  std::pair<int32_t, int32_t> output = {8, 24};
  double factor = 2;              // offered over what can be done
  double warm_s = 5;              // what happens before is not counted
  TimeNs step_ns = 4 * kNsPerMs;  // what a step takes, and each row and prompt token of it
  TimeNs decode_row_ns = kNsPerMs / 4;
  TimeNs prefill_token_ns = kNsPerMs / 10;
  bool classes = false;
  std::vector<engine::TenantPolicy> tenants = {{}};
  std::vector<double> sends = {1};  // what each tenant sends, in proportion
};

class OverloadRun {
 public:
  OverloadRun(const Overload& load, uint64_t seed)
      : load_(load),
        random_(seed),
        senders_(load.sends.begin(), load.sends.end()),
        tokenizer_(engine::tiny_tokenizer()),
        backend_(backend_config(load), clock_) {
    backend_.next_ns = [this] { return next_ns_; };
    backend_.happen = [this] { arrive(); };
    backend_.began = [this] { follow(); };
    engine::EngineConfig config{.max_queued_requests = load.max_queued_requests};
    for (engine::ClassPolicy& policy : config.classes) policy.max_queue_time_ns = 0;
    config.tenants = load.tenants;
    engine_ = std::make_unique<engine::Engine>(config, backend_, tokenizer_, clock_);
    engine_->calibrate(200 * kNsPerMs);
  }

  // After `warm_s`, what happens in `seconds` is counted.
  void run(double seconds) {
    const double capacity = measure_capacity();
    gap_s_ = 1 / (capacity * load_.factor);
    next_ns_ = clock_.now_ns();
    const TimeNs warm_ns =
        clock_.now_ns() + static_cast<TimeNs>(load_.warm_s * static_cast<double>(kNsPerSecond));
    const TimeNs end_ns = warm_ns + static_cast<TimeNs>(seconds * kNsPerSecond);
    while (clock_.now_ns() < end_ns) {
      if (!counting_ && clock_.now_ns() >= warm_ns) {
        counting_ = true;
        before_ = tokens();
      }
      if (!engine_->step()) backend_.pass(kNsPerMs);
      follow();
    }
  }
  // Requests that waited at once.
  int64_t most_waiting() const { return most_waiting_; }
  // Median of |Retry-After - wait| / wait.
  double median_error() { return median(errors_); }
  // Of the tokens served, prompt and answer.
  std::vector<double> shares() const {
    std::vector<double> shares = tokens();
    double sum = 0;
    for (size_t i = 0; i < shares.size(); ++i) sum += shares[i] -= before_[i];
    for (double& share : shares) share /= sum;
    return shares;
  }
  // The same of the quoted times to the first token of those that were taken.
  double median_quote_error() {
    std::vector<double> errors;
    for (const FirstToken& first : first_tokens()) {
      errors.push_back(std::abs(first.quoted_p50_s - first.took_s) / first.took_s);
    }
    return median(errors);
  }
  // Times to the first token over their quoted p95: the one that 99 of 100 are within.
  double over_quoted_p95() {
    std::vector<double> ratios;
    for (const FirstToken& first : first_tokens()) {
      ratios.push_back(first.took_s / first.quoted_p95_s);
    }
    EXPECT_GT(ratios.size(), 100U);
    std::sort(ratios.begin(), ratios.end());
    return ratios[ratios.size() * 99 / 100];
  }

 private:
  static double median(std::vector<double>& values) {
    EXPECT_GT(values.size(), 100U);
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
  }

  static engine::NullBackendConfig backend_config(const Overload& load) {
    return {.limits = {.num_blocks = load.num_blocks,
                       .max_num_seqs = load.max_num_seqs,
                       .max_batch_tokens = 256,
                       .max_model_len = 1024,
                       .vocab_size = 16},
            .step_ns = load.step_ns,
            .decode_row_ns = load.decode_row_ns,
            .prefill_token_ns = load.prefill_token_ns};
  }

  struct Refused {
    Request request;
    TimeNs at_ns = 0;
    double told_s = 0;
  };

  std::vector<double> tokens() const {
    std::vector<double> sums;
    for (const auto& tenant : engine_->stats().tenants) {
      sums.push_back(static_cast<double>(tenant.prompt_tokens.value()) +
                     static_cast<double>(tenant.generation_tokens.value()));
    }
    return sums;
  }
  struct FirstToken {
    double quoted_p50_s = 0;
    double quoted_p95_s = 0;
    double took_s = 0;
  };
  std::vector<FirstToken> first_tokens() const {
    std::vector<FirstToken> times;
    for (const auto& [channel, quote] : quoted_) {
      const engine::RequestFacts& facts = channel->facts();
      if (facts.first_token_ns == 0) continue;
      const auto took_ns = static_cast<double>(facts.first_token_ns - facts.submitted_ns);
      times.push_back({quote.ttft_p50_s, quote.ttft_p95_s, took_ns / kNsPerSecond});
    }
    return times;
  }
  int32_t between(std::pair<int32_t, int32_t> range) {
    return std::uniform_int_distribution<int32_t>(range.first, range.second)(random_);
  }
  Request make_request() {
    Request made;
    made.prompt.resize(static_cast<size_t>(between(load_.prompt)));
    for (int32_t& id : made.prompt) id = between({0, 15});
    made.stop = {.max_tokens = between(load_.output), .ignore_eos = true};
    if (load_.classes) made.request_class = static_cast<engine::RequestClass>(between({0, 1}));
    made.tenant = senders_(random_);
    return made;
  }
  // Requests a second with a queue that is never empty.
  double measure_capacity() {
    next_ns_ = INT64_MAX;
    const TimeNs began_ns = clock_.now_ns();
    for (int i = 0; i < 400; ++i) {
      while (engine_->submit({make_request()}, nullptr)->refusal != nullptr) engine_->step();
    }
    while (engine_->step()) {
    }
    return 400 / (static_cast<double>(clock_.now_ns() - began_ns) / kNsPerSecond);
  }
  void arrive() {
    const double gap_s = std::exponential_distribution<double>(1 / gap_s_)(random_);
    next_ns_ += 1 + static_cast<TimeNs>(gap_s * kNsPerSecond);
    follow();
    Request request = make_request();
    auto quote = engine_->quote(request);
    const auto submission = engine_->submit({request}, nullptr);
    const double waiting = engine_->stats().requests_waiting.value();
    most_waiting_ = std::max(most_waiting_, static_cast<int64_t>(waiting));
    if (submission->refusal == nullptr && counting_) {
      quoted_.emplace_back(submission->channels[0], std::move(*quote));
    }
    if (submission->refusal == nullptr || !counting_ || refused_.size() == kMostFollowed) return;
    // A class that is refused because higher ones wait can't be told when those will stop coming.
    if (submission->refusal->reason != engine::RefusalReason::kQueueFull) return;
    refused_.push_back({std::move(request), clock_.now_ns(), submission->refusal->retry_after_s});
  }
  // Who would be taken now has waited long enough.
  void follow() {
    std::erase_if(refused_, [&](const Refused& refused) {
      const double waited_s =
          std::max(1e-6, static_cast<double>(clock_.now_ns() - refused.at_ns) / kNsPerSecond);
      if (!engine_->quote(refused.request)->admitted && waited_s < kLongestWaitS) return false;
      errors_.push_back(std::abs(refused.told_s - waited_s) / waited_s);
      return true;
    });
  }

  const Overload load_;
  std::mt19937_64 random_;
  std::discrete_distribution<int32_t> senders_;
  model::Tokenizer tokenizer_;
  VirtualClock clock_;
  InterruptedBackend backend_;
  std::unique_ptr<engine::Engine> engine_;
  TimeNs next_ns_ = INT64_MAX;
  double gap_s_ = 1;
  bool counting_ = false;
  std::vector<Refused> refused_;
  std::vector<std::pair<engine::ChannelPtr, engine::Quote>> quoted_;
  std::vector<double> errors_;
  int64_t most_waiting_ = 0;
  std::vector<double> before_;  // tokens by tenant when counting began
};

}  // namespace puna::sim
