// SPDX-License-Identifier: Apache-2.0
// The engine thread's side: the step, and what happens between steps.
#include <algorithm>

#include "base/allocation_seal.h"
#include "base/check.h"
#include "engine/engine_state.h"
#include "engine/planted_bug.h"
#include "engine/time_ledger.h"

namespace puna::engine {
namespace {

constexpr double kTtftQuantileRate = 0.05;  // of the factors on estimated first-token times
constexpr double kTtftFactorFloor = 0.1;
constexpr double kTtftFactorCeiling = 20.0;
// However exact quotes were lately: when a load begins, or other programs take the cores, steps
// take as much longer than what was learned from the last ones.
constexpr double kLeastTtftSpread = 1.3;
constexpr double kOutputMemory = 0.05;  // weight of the newest answer in the mean length
constexpr double kShareMemory = 0.05;   // weight of the newest answer in the mean share
constexpr auto kDeadlinePoll = std::chrono::milliseconds(5);

// Sequences that may wait: the queue's limit, or one call's choices (an empty queue takes any
// call).
int32_t most_waiting(const EngineConfig& config) {
  return std::max(config.max_queued_requests, kMaxChoices);
}

SchedulerConfig scheduler_config(const EngineConfig& config, const BackendLimits& limits) {
  SchedulerConfig made{.num_blocks = limits.num_blocks,
                       .num_host_blocks = limits.num_host_blocks,
                       .max_num_seqs = limits.max_num_seqs,
                       .max_batch_tokens = limits.max_batch_tokens,
                       .prefill_chunk_tokens = config.prefill_chunk_tokens,
                       .max_waiting = most_waiting(config),
                       .full_steps = limits.full_steps,
                       .prefix_cache = config.prefix_cache,
                       .chunk_sizing = config.chunk_sizing,
                       .model_digest = config.model_digest};
  for (size_t i = 0; i < kNumClasses; ++i) made.class_kv_shares[i] = config.classes[i].kv_share;
  made.tenant_weights.clear();
  made.tenant_kv_shares.clear();
  double weights = 0;
  for (const TenantPolicy& tenant : config.tenants) weights += tenant.weight;
  for (const TenantPolicy& tenant : config.tenants) {
    made.tenant_weights.push_back(tenant.weight);
    made.tenant_kv_shares.push_back(tenant.kv_share > 0 ? tenant.kv_share
                                                        : tenant.weight / weights);
  }
  return made;
}

}  // namespace

Engine::State::State(const EngineConfig& engine_config, Backend& engine_backend,
                     const model::Tokenizer& engine_tokenizer, const Clock& engine_clock)
    : config(engine_config),
      backend(engine_backend),
      tokenizer(engine_tokenizer),
      clock(engine_clock),
      stats(config.tenants.size()),
      admission(config, backend.limits()),
      scheduler(scheduler_config(config, backend.limits())),
      forecaster(static_cast<size_t>(backend.limits().max_num_seqs)),
      // Whoever waits, runs or is paused may have news in one step.
      publisher(stats, static_cast<size_t>(most_waiting(config) +
                                           (kNumClasses + 1) * backend.limits().max_num_seqs)),
      applied_pool_limit(backend.limits().num_blocks),
      submitted(static_cast<size_t>(most_waiting(config))),
      pool_limit(applied_pool_limit) {
  const auto rows = static_cast<size_t>(backend.limits().max_num_seqs);
  plan.rows.reserve(rows);
  plan.returns.reserve(rows);
  plan.charged.reserve(config.tenants.size() * kNumClasses);
  batch.items.reserve(rows);
  follow_load();
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
    if (sealed_step()) continue;
    if (waits_for_deadline()) {
      std::this_thread::sleep_for(kDeadlinePoll);
    } else {
      signal.wait(seen, std::memory_order_acquire);
    }
  }
}

bool Engine::State::sealed_step() {
  const SealedScope scope;
  return step();
}

bool Engine::State::step() {
  const TimeNs began_ns = clock.now_ns();
  stats.phase.store(StepPhase::kPlan, std::memory_order_relaxed);
  signs = {};
  accept_submitted();
  scheduler.arrive(backend.copied());
  bool acted = end_gone_or_late(began_ns);
  prepare(began_ns);
  scheduler.plan(plan, model.times());
  if (!plan.rows.empty() || !plan.returns.empty()) {
    acted = true;
    scheduler.commit(plan, began_ns, batch);
    bring_back();
  }
  if (!plan.rows.empty()) {
    run_step(began_ns);
  } else if (const uint64_t copy = scheduler.next_arrival(); copy > 0) {
    acted = true;
    backend.wait_for_copy(copy);
  }
  follow_load();
  set_gauges();
  publisher.wake();
  stats.phase.store(StepPhase::kIdle, std::memory_order_relaxed);
  return acted;
}

void Engine::State::run_step(TimeNs began_ns) {
  ++batch.step;
  if (note_started()) {  // their places in the queue are free from now on
    measure_load();
    admission.publish(load, rung);
  }
  const TimeNs run_ns = clock.now_ns();
  stats.phase.store(StepPhase::kRun, std::memory_order_relaxed);
  backend.start(batch);
  const std::span<const SampledToken> sampled = backend.collect();
  stats.phase.store(StepPhase::kPublish, std::memory_order_relaxed);
  learn(clock.now_ns() - run_ns);
  publish(sampled, began_ns);
  note_step(began_ns);
}

// What may pause somebody: a shrunk pool, growth, and background work in the way of a higher class.
void Engine::State::prepare(TimeNs now_ns) {
  const uint64_t pauses = scheduler.pauses();
  const int32_t wanted_limit = pool_limit.load(std::memory_order_acquire);
  if (wanted_limit != applied_pool_limit) {
    scheduler.set_pool_limit(wanted_limit, now_ns);
    applied_pool_limit = wanted_limit;
  }
  if (plan.blocked_class < static_cast<int>(RequestClass::kBackground)) {
    signs.paused_background = scheduler.pause_background(now_ns);
  }
  scheduler.grow(now_ns);
  stats.preemptions.add(scheduler.pauses() - pauses);
  if (scheduler.saves().empty()) return;
  backend.save(scheduler.saves());
  stats.kv_blocks_swapped_out.add(scheduler.saves().size());
  scheduler.clear_saves();
}

// Asks for the blocks of those that return.
void Engine::State::bring_back() {
  if (plan.returns.empty()) return;
  scheduler.expect(plan, backend.restore(scheduler.restores()));
  stats.kv_blocks_swapped_in.add(scheduler.restores().size());
}

void Engine::State::accept_submitted() {
  while (auto sequence = submitted.try_pop()) scheduler.enqueue(std::move(*sequence));
}

bool Engine::State::end_gone_or_late(TimeNs now_ns) {
  bool any = false;
  for (const Scheduler::Queue* queue :
       {&scheduler.running(), &scheduler.paused(), &scheduler.waiting()}) {
    for (size_t i = queue->size(); i-- > 0;) {
      Sequence& sequence = *(*queue)[i];
      const bool late = sequence.deadline_ns != 0 && sequence.deadline_ns <= now_ns;
      const bool gone = sequence.channel->cancelled() && !commits(PlantedBug::kMissedCancel);
      if (!late && !gone) continue;
      end(sequence, gone ? FinishReason::kCancelled : FinishReason::kDeadline);
      any = true;
    }
  }
  return any;
}

bool Engine::State::waits_for_deadline() const {
  for (const Scheduler::Queue* queue : {&scheduler.paused(), &scheduler.waiting()}) {
    for (const auto& sequence : *queue) {
      if (sequence->deadline_ns != 0) return true;
    }
  }
  return false;
}

void Engine::State::leave_queue(Sequence& sequence) {
  if (!sequence.counted_as_queued) return;
  sequence.counted_as_queued = false;
  admission.leave_queue(sequence);
}

void Engine::State::end(Sequence& sequence, FinishReason reason) {
  const TimeNs now_ns = clock.now_ns();
  account_end(sequence, now_ns);
  const std::unique_ptr<Sequence> owned = scheduler.remove(sequence);
  leave_queue(*owned);
  publisher.end(*owned, reason, now_ns);
  unfinished.fetch_sub(1);
}

bool Engine::State::note_started() {
  bool any = false;
  for (const StepPlan::Row& row : plan.rows) {
    Sequence& sequence = *row.sequence;
    if (row.cached_blocks < 0 || !sequence.counted_as_queued) continue;
    any = true;
    leave_queue(sequence);
    admission.note_started(sequence);
    const RequestFacts& facts = sequence.channel->facts();
    stats.queue_time_s.observe(to_seconds(facts.first_scheduled_ns - facts.submitted_ns));
    stats.tenants[static_cast<size_t>(sequence.tenant)].prompt_tokens.add(
        static_cast<uint64_t>(sequence.prompt_tokens - facts.cached_prompt_tokens));
    if (!config.prefix_cache) continue;
    stats.prefix_cache_queries.add(static_cast<uint64_t>(sequence.prompt_tokens));
    stats.prefix_cache_hits.add(static_cast<uint64_t>(facts.cached_prompt_tokens));
  }
  return any;
}

// Predicted against measured, then the measured step teaches the model.
void Engine::State::learn(TimeNs backend_ns) {
  const double measured_s = to_seconds(backend_ns);
  if (model.times().ready) {
    const double predicted_s = model.times().p50(plan.shape);
    stats.predicted_steps.add();
    stats.step_time_predicted_s.set(predicted_s);
    stats.step_time_measured_s.set(measured_s);
    if (predicted_s > 0) stats.step_time_error.observe(std::abs(measured_s / predicted_s - 1.0));
  }
  model.observe(plan.shape, measured_s);
}

double Engine::State::others_share() const {
  if (!model.times().ready || plan.shape.prefill_tokens == 0) return 0.0;
  StepShape decodes = plan.shape;
  decodes.prefill_tokens = 0;
  decodes.prefill_context = 0;
  const double whole_s = model.times().fitted(plan.shape);
  return whole_s > 0 ? 1.0 - model.times().fitted(decodes) / whole_s : 0.0;
}

void Engine::State::publish(std::span<const SampledToken> sampled, TimeNs began_ns) {
  CHECK_EQ(sampled.size(), static_cast<size_t>(batch.num_samples));
  const TimeNs now_ns = clock.now_ns();
  const double share = others_share();
  size_t next = 0;
  for (size_t i = 0; i < plan.rows.size(); ++i) {
    const SampledToken* token = batch.items[i].sample ? &sampled[next++] : nullptr;
    if (!publish_row(plan.rows[i], token, share, began_ns, now_ns)) continue;
    scheduler.remove(*plan.rows[i].sequence);
    unfinished.fetch_sub(1);
  }
  for (const auto& sequence : scheduler.running()) {
    if (sequence->accounted_ns != now_ns) account_stall(*sequence, now_ns);
  }
}

// True when the answer ended with this token.
bool Engine::State::publish_row(const StepPlan::Row& row, const SampledToken* sampled,
                                double others_share, TimeNs began_ns, TimeNs now_ns) {
  Sequence& sequence = *row.sequence;
  account_step(sequence, row.num_tokens, others_share, began_ns, now_ns);
  scheduler.advance(sequence, row.num_tokens);
  if (sampled == nullptr) return false;
  if (sequence.output_tokens() == 0) follow_first_token(sequence, now_ns);
  scheduler.fair_share().charge(sequence.request_class, sequence.tenant, kOutputTokenCost);
  stats.tenants[static_cast<size_t>(sequence.tenant)].generation_tokens.add();
  if (!publisher.token(sequence, *sampled, now_ns)) return false;
  const double output = sequence.output_tokens();
  output_share += kShareMemory * (output / sequence.stop.max_tokens - output_share);
  load.mean_output += load.mean_output > 0 ? kOutputMemory * (output - load.mean_output) : output;
  return true;
}

void Engine::State::follow_first_token(const Sequence& sequence, TimeNs now_ns) {
  if (sequence.expected_ttft_s <= 0) return;
  const double ratio =
      to_seconds(now_ns - sequence.channel->facts().submitted_ns) / sequence.expected_ttft_s;
  load.ttft_p50_factor =
      std::clamp(follow_quantile(load.ttft_p50_factor, ratio, 0.50, kTtftQuantileRate),
                 kTtftFactorFloor, kTtftFactorCeiling);
  load.ttft_p95_factor =
      std::clamp(follow_quantile(load.ttft_p95_factor, ratio, 0.95, kTtftQuantileRate),
                 kLeastTtftSpread * load.ttft_p50_factor, kTtftFactorCeiling);
}

void Engine::State::note_step(TimeNs began_ns) {
  const TimeNs ended_ns = clock.now_ns();
  stats.steps.add();
  stats.iteration_tokens.observe(static_cast<double>(plan.num_tokens));
  stats.step_time_s.observe(to_seconds(ended_ns - began_ns));
  stats.last_step_ns.store(ended_ns, std::memory_order_relaxed);
  admission.end_step(ended_ns - began_ns);
}

// What runs, and when it will leave room for those that wait.
void Engine::State::measure_load() {
  load.times = model.times();
  load.decodes = {};
  load.prompt_backlog = 0;
  TimeNs target_ns = 0;
  for (const auto& sequence : scheduler.running()) {
    load.decodes.add_decode(sequence->computed);
    load.prompt_backlog += sequence->left() - 1;
    const TimeNs own_ns = sequence->tpot_target_ns;
    if (own_ns > 0 && (target_ns == 0 || own_ns < target_ns)) target_ns = own_ns;
  }
  load.tpot_target_s = to_seconds(target_ns);
  const auto slots = std::min(backend.limits().max_num_seqs, backend.limits().max_batch_tokens);
  load.free_slots = slots - static_cast<int64_t>(scheduler.running().size());
  load.free_blocks = scheduler.pool().available() - scheduler.promised();
  forecast_starts();
}

// What admission is told after each step, and how high the ladder stands.
void Engine::State::follow_load() {
  measure_load();
  signs.evicted = scheduler.evictions() != evictions_seen;
  evictions_seen = scheduler.evictions();
  signs.chunk_cut = plan.chunk_cut && !plan.rows.empty();
  for (size_t rank = 0; rank < kNumClasses; ++rank) {
    signs.queue_fill[rank] = admission.queue_fill(rank);
  }
  rung = ladder.update(signs);
  if (signs.evicted) stats.rung_steps[static_cast<size_t>(Rung::kDropCached)].add();
  if (signs.chunk_cut) stats.rung_steps[static_cast<size_t>(Rung::kSmallerChunk)].add();
  if (signs.paused_background) {
    stats.rung_steps[static_cast<size_t>(Rung::kPauseBackground)].add();
  }
  if (rung >= Rung::kRefuseBackground) stats.rung_steps[static_cast<size_t>(rung)].add();
  stats.degrade_rung.set(static_cast<double>(rung));
  admission.publish(load, rung);
}

// How many tokens more an answer says: its usual share of what it may, or half of the rest.
double Engine::State::output_left(const Sequence& sequence) const {
  const double most = sequence.stop.max_tokens;
  const double usual = output_share * most;
  const double said = sequence.output_tokens();
  return std::max(1.0, said < usual ? usual - said : (most - said) / 2);
}

// Those that run, in the order of their starts, then those that wait, paused ones first.
void Engine::State::forecast_starts() {
  load.published_ns = clock.now_ns();
  load.starts_per_s = admission.starts_per_s();
  load.starts = {};
  if (!model.times().ready) return;
  const StepOutlook outlook = step_outlook(load, config, backend.limits());
  forecaster.clear();
  const auto rows = static_cast<double>(load.decodes.decode_rows);
  double prompts = 0;  // are computed in this order
  for (const auto& sequence : scheduler.running()) {
    double steps = output_left(*sequence);
    if (sequence->left() > 1) {
      prompts += sequence->left() - 1;
      steps += std::ceil(prompts / outlook.step_tokens(rows, sequence->left())) - 1;
    }
    forecaster.runs({.steps = steps, .blocks = static_cast<double>(sequence->reserved_blocks)});
  }
  for (const Scheduler::Queue* queue : {&scheduler.paused(), &scheduler.waiting()}) {
    for (const auto& sequence : *queue) {
      if (forecaster.full()) break;
      // What the host keeps of a paused one is not computed again.
      forecaster.waits({.prompt = static_cast<double>(sequence->left() - 1 - sequence->saved),
                        .output = output_left(*sequence),
                        .blocks = static_cast<double>(sequence->reserved_blocks)});
    }
  }
  load.starts = forecaster.walk(outlook, {.slots = static_cast<double>(load.free_slots),
                                          .blocks = static_cast<double>(load.free_blocks),
                                          .backlog = static_cast<double>(load.prompt_backlog),
                                          .resumed = std::ssize(scheduler.paused())});
}

void Engine::State::set_gauges() {
  int64_t positions = 0;
  for (const auto& sequence : scheduler.running()) positions += sequence->computed;
  stats.requests_running.set(static_cast<double>(scheduler.running().size()));
  stats.requests_waiting.set(static_cast<double>(admission.queued_requests()) +
                             static_cast<double>(scheduler.paused().size()));
  stats.tokens_waiting.set(static_cast<double>(admission.queued_tokens()));
  for (size_t rank = 0; rank < kNumClasses; ++rank) {
    stats.class_requests_waiting[rank].set(static_cast<double>(admission.queued_requests(rank)));
    stats.class_tokens_waiting[rank].set(static_cast<double>(admission.queued_tokens(rank)));
  }
  stats.tokens_in_flight.set(static_cast<double>(positions));
  stats.kv_cache_usage.set(static_cast<double>(scheduler.pool().held()) /
                           static_cast<double>(scheduler.pool().total()));
  const kv::BlockPool& host = scheduler.host_pool();
  stats.host_kv_usage.set(static_cast<double>(host.held()) / std::max(1, host.total()));
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
