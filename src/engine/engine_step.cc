// SPDX-License-Identifier: Apache-2.0
// The engine thread's side: the step, and what happens between steps.
#include "engine/engine_state.h"

#include <algorithm>

#include "base/check.h"

namespace puna::engine {
namespace {

// Sequences that may wait: the queue's limit, or one call's choices (an empty queue takes any
// call).
int32_t most_waiting(const EngineConfig& config) {
  return std::max(config.max_queued_requests, kMaxChoices);
}

}  // namespace

Engine::State::State(const EngineConfig& engine_config, Backend& engine_backend,
                     const model::Tokenizer& engine_tokenizer, const Clock& engine_clock)
    : config(engine_config),
      backend(engine_backend),
      tokenizer(engine_tokenizer),
      clock(engine_clock),
      scheduler({.num_blocks = backend.limits().num_blocks,
                 .max_num_seqs = backend.limits().max_num_seqs,
                 .max_batch_tokens = backend.limits().max_batch_tokens,
                 .prefill_chunk_tokens = config.prefill_chunk_tokens,
                 .max_waiting = most_waiting(config),
                 .prefix_cache = config.prefix_cache,
                 .model_digest = config.model_digest}),
      publisher(stats, static_cast<size_t>(most_waiting(config) + backend.limits().max_num_seqs)),
      applied_pool_limit(backend.limits().num_blocks),
      submitted(static_cast<size_t>(most_waiting(config))),
      pool_limit(applied_pool_limit) {
  const auto rows = static_cast<size_t>(backend.limits().max_num_seqs);
  plan.rows.reserve(rows);
  batch.items.reserve(rows);
}

void Engine::State::notify() {
  signal.fetch_add(1, std::memory_order_release);
  signal.notify_one();
}

void Engine::State::run() {
  for (;;) {
    // Read before looking for work: what arrives after the look changes it, and wait() returns.
    const uint32_t seen = signal.load(std::memory_order_acquire);
    if (stopping.load(std::memory_order_acquire)) return;
    if (!step()) signal.wait(seen, std::memory_order_acquire);
  }
}

bool Engine::State::step() {
  const TimeNs began_ns = clock.now_ns();
  accept_submitted();
  bool acted = end_cancelled();
  const int32_t wanted_limit = pool_limit.load(std::memory_order_acquire);
  if (wanted_limit != applied_pool_limit) {
    const uint64_t pauses = scheduler.pauses();
    scheduler.set_pool_limit(wanted_limit);
    stats.preemptions.add(scheduler.pauses() - pauses);
    applied_pool_limit = wanted_limit;
  }
  scheduler.plan(plan);
  if (!plan.rows.empty()) {
    acted = true;
    scheduler.commit(plan, began_ns, batch);
    ++batch.step;
    note_started();
    backend.start(batch);
    publish(backend.collect());
    note_step(began_ns);
  }
  set_gauges();
  publisher.wake();
  return acted;
}

void Engine::State::accept_submitted() {
  while (auto sequence = submitted.try_pop()) scheduler.enqueue(std::move(*sequence));
}

bool Engine::State::end_cancelled() {
  bool any = false;
  for (const Scheduler::Queue* queue :
       {&scheduler.running(), &scheduler.paused(), &scheduler.waiting()}) {
    for (size_t i = queue->size(); i-- > 0;) {
      if (!(*queue)[i]->channel->cancelled()) continue;
      end(*(*queue)[i], FinishReason::kCancelled);
      any = true;
    }
  }
  return any;
}

void Engine::State::leave_queue(Sequence& sequence) {
  if (!sequence.counted_as_queued) return;
  sequence.counted_as_queued = false;
  queued_requests.fetch_sub(1, std::memory_order_relaxed);
  queued_tokens.fetch_sub(sequence.prompt_tokens, std::memory_order_relaxed);
}

void Engine::State::end(Sequence& sequence, FinishReason reason) {
  const std::unique_ptr<Sequence> owned = scheduler.remove(sequence);
  leave_queue(*owned);
  publisher.end(*owned, reason, clock.now_ns());
  unfinished.fetch_sub(1);
}

void Engine::State::note_started() {
  started_requests = 0;
  started_tokens = 0;
  for (const StepPlan::Row& row : plan.rows) {
    Sequence& sequence = *row.sequence;
    if (row.cached_blocks < 0 || !sequence.counted_as_queued) continue;
    leave_queue(sequence);
    ++started_requests;
    started_tokens += sequence.prompt_tokens;
    const RequestFacts& facts = sequence.channel->facts();
    stats.queue_time_s.observe(static_cast<double>(facts.first_scheduled_ns - facts.submitted_ns) /
                               static_cast<double>(kNsPerSecond));
    if (!config.prefix_cache) continue;
    stats.prefix_cache_queries.add(static_cast<uint64_t>(sequence.prompt_tokens));
    stats.prefix_cache_hits.add(static_cast<uint64_t>(facts.cached_prompt_tokens));
  }
}

void Engine::State::publish(std::span<const SampledToken> sampled) {
  CHECK_EQ(sampled.size(), static_cast<size_t>(batch.num_samples));
  const TimeNs now_ns = clock.now_ns();
  size_t next = 0;
  for (size_t i = 0; i < plan.rows.size(); ++i) {
    Sequence& sequence = *plan.rows[i].sequence;
    scheduler.advance(sequence, plan.rows[i].num_tokens);
    if (!batch.items[i].sample || !publisher.token(sequence, sampled[next++], now_ns)) continue;
    scheduler.remove(sequence);
    unfinished.fetch_sub(1);
  }
}

void Engine::State::note_step(TimeNs began_ns) {
  const TimeNs ended_ns = clock.now_ns();
  const double step_s =
      static_cast<double>(ended_ns - began_ns) / static_cast<double>(kNsPerSecond);
  stats.steps.add();
  stats.iteration_tokens.observe(static_cast<double>(plan.num_tokens));
  stats.step_time_s.observe(step_s);
  stats.last_step_ns.store(ended_ns, std::memory_order_relaxed);
  if (started_requests > 0 || queued_requests.load(std::memory_order_relaxed) > 0) {
    drain_rate.note_step(ended_ns - began_ns, started_tokens, started_requests);
  }
}

void Engine::State::set_gauges() {
  const auto running = scheduler.running().size();
  int64_t positions = 0;
  for (const auto& sequence : scheduler.running()) positions += sequence->computed;
  const int64_t queued = queued_requests.load(std::memory_order_relaxed);
  stats.requests_running.set(static_cast<double>(running));
  stats.requests_waiting.set(static_cast<double>(queued) +
                             static_cast<double>(scheduler.paused().size()));
  stats.tokens_waiting.set(static_cast<double>(queued_tokens.load(std::memory_order_relaxed)));
  stats.tokens_in_flight.set(static_cast<double>(positions));
  stats.kv_cache_usage.set(static_cast<double>(scheduler.pool().held()) /
                           static_cast<double>(scheduler.pool().total()));
}

void Engine::State::fail_unfinished() {
  // A submitter that got past the draining check may still be pushing: wait for it.
  while (unfinished.load() > 0) {
    accept_submitted();
    for (const Scheduler::Queue* queue :
         {&scheduler.running(), &scheduler.paused(), &scheduler.waiting()}) {
      while (!queue->empty()) end(*queue->back(), FinishReason::kError);
    }
    publisher.wake();
    std::this_thread::yield();
  }
}

}  // namespace puna::engine
