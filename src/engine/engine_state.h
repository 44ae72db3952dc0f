// SPDX-License-Identifier: Apache-2.0
// The inside of Engine. Fields of the first part belong to the engine thread; those of the second
// are the only things that other threads touch.
#pragma once

#include <atomic>
#include <memory>
#include <thread>

#include "base/bounded_queue.h"
#include "engine/admission.h"
#include "engine/engine.h"
#include "engine/publisher.h"
#include "engine/request_memory.h"
#include "engine/scheduler.h"
#include "engine/start_forecast.h"

namespace puna::engine {

struct Engine::State {
  State(const EngineConfig& config, Backend& backend, const model::Tokenizer& tokenizer,
        const Clock& clock);

  // One transaction: plan -> commit -> run -> publish. False when there was nothing to do.
  bool step();
  // The thread: steps, and sleeps while there is nothing to do.
  void run();
  // Any thread: makes sequences of checked requests that the queue has room for, and hands them
  // over.
  std::vector<ChannelPtr> enqueue(std::vector<Request> requests, const Estimate& estimate,
                                  Waker* waker);
  // Any thread: the memory of a call whose first choice is `first`, or why it can't be had now.
  std::unique_ptr<Refusal> claim_bytes(const Request& first, int64_t bytes,
                                       const Estimate& estimate);
  // Ends everything that is left, after the thread stopped.
  void fail_unfinished();
  // Wakes the thread from its sleep.
  void notify();

  const EngineConfig config;
  Backend& backend;
  const model::Tokenizer& tokenizer;
  const Clock& clock;
  EngineStats stats;
  Admission admission;
  Scheduler scheduler;
  LatencyModel model;
  DegradeLadder ladder;
  StartForecaster forecaster;
  Publisher publisher;
  StepPlan plan;
  Batch batch;
  int32_t applied_pool_limit;
  Load load;
  LoadSigns signs;
  Rung rung = Rung::kNone;
  uint64_t evictions_seen = 0;
  double output_share = 1.0;  // mean of answers' lengths over their max_tokens

  MemoryClaim::Pool request_bytes = std::make_shared<std::atomic<int64_t>>(0);
  BoundedQueue<std::unique_ptr<Sequence>> submitted;
  std::atomic<int64_t> unfinished{0};  // taken, and not ended yet
  std::atomic<uint64_t> next_ticket{1};
  std::atomic<int32_t> pool_limit;
  std::atomic<bool> draining{false};
  std::atomic<bool> stopping{false};
  std::atomic<uint32_t> signal{0};  // changes when there may be something to do
  std::thread thread;

 private:
  bool sealed_step();
  void run_step(TimeNs began_ns);
  void accept_submitted();
  void prepare(TimeNs now_ns);
  void bring_back();
  bool end_gone_or_late(TimeNs now_ns);
  bool waits_for_deadline() const;
  bool note_started();
  void publish(std::span<const SampledToken> sampled, TimeNs began_ns);
  bool publish_row(const StepPlan::Row& row, const SampledToken* sampled, double others_share,
                   TimeNs began_ns, TimeNs now_ns);
  void learn(TimeNs backend_ns);
  double others_share() const;
  void measure_load();
  void follow_load();
  void forecast_starts();
  double output_left(const Sequence& sequence) const;
  void follow_first_token(const Sequence& sequence, TimeNs now_ns);
  void end(Sequence& sequence, FinishReason reason);
  void leave_queue(Sequence& sequence);
  void note_step(TimeNs began_ns);
  void set_gauges();
};

}  // namespace puna::engine
