// SPDX-License-Identifier: Apache-2.0
#include "simulation.h"

#include <fmt/format.h>

#include <algorithm>

namespace puna::sim {

using engine::FinishReason;
using engine::Request;
using engine::TokenId;

namespace {

constexpr uint64_t kSoloOneIn = 4;  // answers that are computed again, token by token
constexpr size_t kMostOpen = 60;    // else a slow seed piles up refused calls
constexpr double kLeastRetryS = 0.01;
constexpr double kMostRetryS = 60;

const model::Tokenizer& tokenizer() {
  static const model::Tokenizer made = engine::tiny_tokenizer();
  return made;
}

std::vector<double> weights_of(const engine::EngineConfig& config) {
  std::vector<double> weights;
  for (const engine::TenantPolicy& tenant : config.tenants) weights.push_back(tenant.weight);
  return weights;
}

}  // namespace

void Events::add(const Events& other) {
  steps += other.steps;
  answers += other.answers;
  cancelled += other.cancelled;
  late += other.late;
  failed_by_stop += other.failed_by_stop;
  refusals += other.refusals;
  impossible += other.impossible;
  preemptions += other.preemptions;
  cached_tokens += other.cached_tokens;
  saved_blocks += other.saved_blocks;
  restored_blocks += other.restored_blocks;
  solo_runs += other.solo_runs;
}

Simulation::Simulation(uint64_t seed, uint64_t steps)
    : scenario_(seed),
      dice_(scenario_.dice),
      least_steps_(steps),
      tokenizer_(tokenizer()),
      backend_(scenario_.backend, &clock_),
      readers_(1 + dice_.pick(3)),
      engine_(std::make_unique<engine::Engine>(scenario_.engine, backend_, tokenizer_, clock_)),
      turns_(weights_of(scenario_.engine), backend_.limits().max_num_seqs, scenario_.slow_readers),
      pool_limit_(backend_.limits().num_blocks) {
  clock_.advance(1);  // facts use 0 for "not yet"
  if (scenario_.calibrated) engine_->calibrate(100 * kNsPerMs);
}

// --- clients call -------------------------------------------------------------------------------

void Simulation::make_calls() {
  if (rounds_ >= phase_ends_) {
    static constexpr uint64_t kOneIn[] = {0, 40, 12, 5, 2, 1};
    one_in_ = kOneIn[dice_.pick(std::size(kOneIn))];
    phase_ends_ = rounds_ + 10 + dice_.pick(150);
  }
  for (size_t i = 0; i < retries_.size();) {
    if (retries_[i].at_ns > clock_.now_ns()) {
      ++i;
      continue;
    }
    std::vector<Request> choices = std::move(retries_[i].choices);
    retries_[i] = std::move(retries_.back());
    retries_.pop_back();
    call(std::move(choices));
  }
  if (one_in_ == 0 || !dice_.chance(one_in_) || open_.size() > kMostOpen) return;
  const size_t count = dice_.chance(6) ? 2 + dice_.pick(3) : 1;
  std::vector<Request> choices(count, scenario_.make_request(clock_.now_ns()));
  for (Request& choice : choices) choice.sampling.seed += dice_.pick(1000);
  call(std::move(choices));
}

void Simulation::call(std::vector<Request> choices) {
  const bool possible = scenario_.most_output(choices.front()) > 0;
  // What a quote says, a call of one choice is told a moment later.
  const bool quoted = choices.size() == 1 && dice_.chance(4);
  bool admitted = false;
  if (quoted) {
    const auto quote = engine_->quote(choices.front());
    if (quote.ok() != possible) return problem("quoted exactly what is not possible");
    admitted = quote.ok() && quote->admitted;
  }
  auto submission = engine_->submit(choices, &readers_[dice_.pick(readers_.size())]);
  if (submission.ok() != possible) return problem("accepted exactly what is not possible");
  if (!possible) {
    ++events_.impossible;
    return;
  }
  if (quoted && admitted != (submission->refusal == nullptr)) {
    return problem("the quote was wrong");
  }
  if (submission->refusal != nullptr) return refuse(choices, *submission->refusal);
  take(choices, *submission);
}

void Simulation::take(std::vector<Request>& choices, engine::Engine::Submission& submission) {
  ++calls_;
  const bool leaves = scenario_.impatient && dice_.chance(4);
  const TimeNs leaves_ns =
      leaves ? clock_.now_ns() + 1 + scenario_.decode_step_ns * dice_.between(0, 60) : 0;
  Habit habit = Habit::kReads;
  if (scenario_.slow_readers && dice_.chance(3)) {
    habit = dice_.chance(2) ? Habit::kReadsLate : Habit::kReadsAtTheEnd;
  }
  for (size_t i = 0; i < choices.size(); ++i) {
    Client& client = clients_.emplace_back();
    client.request = std::move(choices[i]);
    client.request.stop.max_tokens = scenario_.most_output(client.request);
    client.channel = submission.channels[i];
    client.reader = static_cast<Reader*>(client.channel->waker());
    client.habit = habit;
    client.call = calls_;
    client.ticket = clients_.size();
    client.leaves_ns = leaves_ns;
    client.last_news_step = rounds_;
    open_.push_back(&client);
  }
}

void Simulation::refuse(std::vector<Request>& choices, const engine::Refusal& refusal) {
  ++events_.refusals;
  if (refusal.draining != stopped_) return problem("refused as draining exactly when it is not");
  if (stopped_) return;
  const double wait_s = refusal.retry_after_s;
  if (wait_s < kLeastRetryS || wait_s > kMostRetryS) {
    return problem(fmt::format("Retry-After is {} s", wait_s));
  }
  const bool empty = std::all_of(open_.begin(), open_.end(), [](const Client* client) {
    return client->started() || client->ended_now();
  });
  if (refusal.reason == engine::RefusalReason::kQueueFull && empty) {
    return problem("refused for a full queue that is empty");
  }
  if (dice_.chance(2) || !arriving_) return;  // gives up
  for (Request& choice : choices) choice.deadline_ns = 0;
  retries_.push_back(
      {clock_.now_ns() + static_cast<TimeNs>(wait_s * kNsPerSecond), std::move(choices)});
}

// --- whose turn ---------------------------------------------------------------------------------

// Who could start in the step that comes: it waits, and no choice of its call computes the prompt.
void Simulation::watch_turns_before() {
  turns_.begin_step();
  running_calls_.clear();
  for (const Client* client : open_) {
    if (client->started() && !client->ended_now()) {
      turns_.holds_blocks(client->rank());
      ++running_calls_[client->call];
    }
  }
  for (Client* client : open_) client->waited = !client->started() && !client->ended_now();
}

void Simulation::watch_turns_after() {
  for (Client* client : open_) {
    if (!client->waited || !client->started()) continue;
    client->waited = false;
    note_start(*client);
    ++running_calls_[client->call];
  }
  for (const Client* client : open_) {
    if (!client->waited || client->ended_now()) continue;
    if (running_calls_.contains(client->call)) {
      turns_.waits_for_sibling(client->rank(), client->tenant());
    } else {
      turns_.waits(client->rank(), client->tenant(), client->ticket);
    }
  }
  const std::string broken = turns_.end_step();
  if (!broken.empty()) problem(broken);
}

void Simulation::note_start(const Client& client) {
  const engine::RequestFacts& facts = client.channel->facts();
  const auto prompt = static_cast<double>(client.request.prompt.size());
  turns_.started(client.rank(), client.tenant(), client.ticket);
  turns_.served(client.rank(), client.tenant(),
                engine::kPromptTokenCost * (prompt - facts.cached_prompt_tokens));
  double exposure = 0;
  for (const Client* other : open_) {
    if (other->rank() != client.rank() || other->tenant() != client.tenant()) continue;
    if (!other->started()) continue;  // who ended in this step still counts
    const bool now = other->channel->facts().first_scheduled_ns == facts.first_scheduled_ns;
    if (now)
      exposure += engine::kPromptTokenCost * static_cast<double>(other->request.prompt.size());
    // One more, for this step's token is read already.
    exposure += engine::kOutputTokenCost *
                (other->request.stop.max_tokens + 1.0 - static_cast<double>(other->tokens.size()));
  }
  turns_.exposed(client.rank(), client.tenant(), exposure + engine::kPromptTokenCost * prompt);
}

// --- a step -------------------------------------------------------------------------------------

void Simulation::step() {
  step_began_ns_ = clock_.now_ns();
  for (Reader& reader : readers_) reader.woken = false;
  watch_turns_before();
  const bool worked = engine_->step();
  ++rounds_;
  events_.steps += worked ? 1 : 0;
  engine_->check_invariants();
  let_clients_act();
  watch_turns_after();
  std::erase_if(
      open_, [](Client* client) { return client->ended && client->finish != FinishReason::kNone; });
  inject_faults();
  if (!worked) idle();
}

void Simulation::idle() {
  if (pool_limit_ == backend_.limits().num_blocks && rounds_ > last_fault_round_ + 1 &&
      engine_->stats().requests_waiting.value() > 0) {
    problem("idle while requests wait");
  }
  clock_.advance(scenario_.decode_step_ns);
}

void Simulation::let_clients_act() {
  for (Client* client : open_) {
    check_prompt_end(*client);
    const bool due = client->habit == Habit::kReads       ? client->reader->woken
                     : client->habit == Habit::kReadsLate ? dice_.chance(16)
                                                          : client->ended;
    if (due) read(*client);
    if (client->habit == Habit::kReads && !client->reader->woken) check_reader(*client);
    check_progress(*client);
    client->ended = client->ended_now();
    if (!client->left && client->leaves_ns != 0 && client->leaves_ns <= clock_.now_ns() &&
        !client->ended) {
      client->left = true;
      engine_->cancel(*client->channel);
    }
  }
}

void Simulation::read(Client& client) {
  while (const engine::TokenEvent* event = client.channel->next()) {
    if (client.finish != FinishReason::kNone) return problem("an event after the last one");
    client.finish = event->finish;
    client.last_news_step = rounds_;
    if (event->token < 0) continue;
    client.tokens.push_back(event->token);
    client.logprobs.push_back(event->logprob);
    turns_.served(client.rank(), client.tenant(), engine::kOutputTokenCost);
  }
  if (client.finish != FinishReason::kNone) check_answer(client);
}

void Simulation::check_reader(Client& client) {
  if (client.channel->next() != nullptr) problem("a reader with news was not woken");
}

// Who left, or whose deadline passed, before a step began must have ended in it.
void Simulation::check_prompt_end(const Client& client) {
  if (client.ended_now()) return;
  if (client.left) return problem("still working for a client that left before this step");
  const TimeNs deadline_ns = client.request.deadline_ns;
  if (deadline_ns != 0 && deadline_ns <= step_began_ns_) problem("a deadline was missed");
}

// While the pool is whole, a sequence that gave its first token gives one more in every step;
// unless it was paused, and is computed again.
void Simulation::check_progress(const Client& client) {
  if (client.tokens.empty() || client.habit != Habit::kReads || client.ended_now()) return;
  if (client.channel->facts().preemptions > 0) return;  // finish() bounds those
  if (rounds_ > std::max(client.last_news_step, last_fault_round_) + 1) {
    problem("a running sequence starves");
  }
}

void Simulation::inject_faults() {
  if (!scenario_.faults) return;
  if (dice_.chance(40)) backend_.stall(scenario_.decode_step_ns * dice_.between(0, 400));
  const int32_t whole = backend_.limits().num_blocks;
  if (pool_limit_ < whole && rounds_ >= limit_ends_round_) {
    pool_limit_ = whole;
    engine_->set_pool_limit(whole);
    last_fault_round_ = rounds_ + 1;
  } else if (arriving_ && dice_.chance(60)) {
    pool_limit_ = dice_.between(0, whole);
    limit_ends_round_ = rounds_ + 1 + dice_.pick(40);
    engine_->set_pool_limit(pool_limit_);
  }
  if (pool_limit_ < whole) last_fault_round_ = rounds_ + 1;
}

// --- the run, and its end -----------------------------------------------------------------------

std::string Simulation::run() {
  while (problem_.empty() && events_.steps < least_steps_) {
    make_calls();
    if (problem_.empty()) step();
  }
  if (problem_.empty()) finish();
  return problem_;
}

// No more calls: either the engine is stopped in the middle, or every request must end within as
// many steps as it has tokens; the oldest one always goes on.
void Simulation::finish() {
  arriving_ = false;
  retries_.clear();
  if (dice_.chance(4)) {
    engine_->stop();
    stopped_ = true;
    call({scenario_.make_request(clock_.now_ns())});
  }
  uint64_t patience = rounds_ + 100 + limit_ends_round_ - std::min(limit_ends_round_, rounds_);
  for (const Client* client : open_) {
    patience +=
        2 * (client->request.prompt.size() + static_cast<size_t>(client->request.stop.max_tokens));
  }
  const auto all_ended = [&] {
    return std::all_of(open_.begin(), open_.end(),
                       [](const Client* client) { return client->ended_now(); });
  };
  while (problem_.empty() && !all_ended()) {
    step();
    if (rounds_ > patience) problem("some request never ends");
  }
  if (!problem_.empty()) return;
  engine_->check_invariants();
  for (Client* client : open_) read(*client);
  for (const Client& client : clients_) {
    if (client.finish == FinishReason::kNone) problem("a taken request never ended");
  }
  check_cached();
  check_counters();
}

void Simulation::check_answer(const Client& client) {
  switch (client.finish) {
    case FinishReason::kCancelled:
      ++events_.cancelled;
      if (!client.left) problem("cancelled, though its client waits");
      break;
    case FinishReason::kDeadline:
      ++events_.late;
      if (client.request.deadline_ns == 0 || client.request.deadline_ns > clock_.now_ns()) {
        problem("ended by a deadline that is not over");
      }
      break;
    case FinishReason::kError:
      ++events_.failed_by_stop;
      if (!stopped_) problem("an admitted request failed");
      break;
    default:
      ++events_.answers;
  }
  if (!dice_.chance(kSoloOneIn)) return;
  ++events_.solo_runs;
  const engine::SoloAnswer solo =
      engine::solo_run(client.request, tokenizer_, backend_.limits().vocab_size);
  const size_t got = client.tokens.size();
  if (got > solo.tokens.size() ||
      !std::equal(client.tokens.begin(), client.tokens.end(), solo.tokens.begin())) {
    return problem("an answer differs from its solo run");
  }
  if (!std::equal(client.logprobs.begin(), client.logprobs.end(), solo.logprobs.begin())) {
    return problem("a logprob differs from its solo run");
  }
  const bool whole = client.finish == FinishReason::kStop || client.finish == FinishReason::kLength;
  if (whole && (got != solo.tokens.size() || client.finish != solo.finish)) {
    problem(fmt::format("an answer ended after {} of {} tokens", got, solo.tokens.size()));
  }
}

// Cached tokens must come from somebody else under the same salt whose tokens begin alike.
void Simulation::check_cached() {
  std::unordered_map<uint64_t, int32_t> holders;  // of each beginning of full blocks
  const auto beginnings = [](const Client& client, auto&& visit) {
    uint64_t hash = client.request.cache_salt;
    size_t position = 0;
    for (const std::vector<TokenId>* part : {&client.request.prompt, &client.tokens}) {
      for (const TokenId token : *part) {
        hash = (hash + static_cast<uint64_t>(token) + 1) * 0x9E3779B97F4A7C15ULL;
        hash ^= hash >> 29U;
        if (++position % static_cast<size_t>(kv::kBlockTokens) == 0) visit(position, hash);
      }
    }
  };
  for (const Client& client : clients_) {
    beginnings(client, [&](size_t, uint64_t hash) { ++holders[hash]; });
  }
  for (const Client& client : clients_) {
    const auto cached = static_cast<size_t>(client.channel->facts().cached_prompt_tokens);
    events_.cached_tokens += cached;
    beginnings(client, [&](size_t position, uint64_t hash) {
      if (position == cached && holders[hash] < 2) {
        problem("a prefix was shared across salts, or came from nowhere");
      }
    });
  }
}

void Simulation::check_counters() {
  const engine::EngineStats& stats = engine_->stats();
  const uint64_t ended = stats.finished_stop.value() + stats.finished_length.value() +
                         stats.finished_cancelled.value() + stats.finished_deadline.value() +
                         stats.finished_error.value();
  if (ended != clients_.size()) problem("the counters miss a request, or count one twice");
  if (!engine_->drain(0)) problem("somebody is counted as unfinished");
  if (!stopped_ && stats.kv_cache_usage.value() != 0) problem("blocks are held for nobody");
  uint64_t tokens = 0;
  for (const Client& client : clients_) tokens += client.tokens.size();
  if (tokens != stats.generation_tokens.value()) problem("tokens were lost on the way");
  if (!stopped_ && stats.host_kv_usage.value() != 0) problem("host blocks are held for nobody");
  events_.preemptions += stats.preemptions.value();
  events_.saved_blocks += stats.kv_blocks_swapped_out.value();
  events_.restored_blocks += stats.kv_blocks_swapped_in.value();
}

void Simulation::problem(const std::string& text) {
  if (problem_.empty()) problem_ = fmt::format("round {}: {}", rounds_, text);
}

}  // namespace puna::sim
