// SPDX-License-Identifier: Apache-2.0
#include "simulation.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace puna::sim {

using engine::FinishReason;
using engine::Request;
using engine::TokenId;

namespace {

// 256 byte tokens and the special ones up to <|eot_id|>.
constexpr int32_t kVocab = 272;

}  // namespace

Simulation::Simulation(uint64_t seed)
    : random_(seed),
      tokenizer_(engine::tiny_tokenizer()),
      backend_(make_backend_config(), &clock_),
      config_(make_engine_config()),
      engine_(std::make_unique<engine::Engine>(config_, backend_, tokenizer_, clock_)),
      pool_limit_(backend_.limits().num_blocks) {
  make_calls();
}

engine::NullBackendConfig Simulation::make_backend_config() {
  const auto num_blocks = static_cast<int32_t>(6 + pick(60));
  return {.limits = {.num_blocks = num_blocks,
                     .max_num_seqs = static_cast<int32_t>(1 + pick(12)),
                     .max_batch_tokens = static_cast<int32_t>(1 + pick(80)),
                     .max_model_len = static_cast<int32_t>(40 + pick(300)),
                     .vocab_size = kVocab},
          .step_ns = static_cast<TimeNs>(pick(5) * kNsPerMs),
          .decode_row_ns = static_cast<TimeNs>(pick(200'000)),
          .prefill_token_ns = static_cast<TimeNs>(1 + pick(50'000))};
}

engine::EngineConfig Simulation::make_engine_config() {
  return {.max_queued_requests = static_cast<int32_t>(1 + pick(20)),
          .max_queued_tokens = static_cast<int64_t>(1 + pick(2000)),
          .prefill_chunk_tokens = static_cast<int32_t>(1 + pick(70)),
          .prefix_cache = !chance(8),
          .model_digest = pick(3)};
}

engine::SamplingParams Simulation::make_sampling() {
  engine::SamplingParams made;
  made.temperature = static_cast<float>(pick(4)) * 0.6F;
  made.top_k = chance(2) ? 0 : static_cast<int32_t>(1 + pick(kVocab + 10));
  made.top_p = chance(2) ? 1.0F : 0.05F + static_cast<float>(pick(90)) * 0.01F;
  made.min_p = chance(2) ? 0.0F : static_cast<float>(pick(100)) * 0.002F;
  if (chance(3)) made.repetition_penalty = 0.8F + static_cast<float>(pick(10)) * 0.1F;
  if (chance(3)) made.frequency_penalty = static_cast<float>(pick(8)) * 0.5F - 2.0F;
  if (chance(3)) made.presence_penalty = static_cast<float>(pick(8)) * 0.5F - 2.0F;
  if (chance(4)) made.logit_bias = {{static_cast<TokenId>(pick(kVocab)), 3.0F}};
  made.seed = pick(1000);
  made.top_logprobs = static_cast<int32_t>(pick(8)) - 4 < 0 ? -1 : static_cast<int32_t>(pick(21));
  return made;
}

Request Simulation::make_request() {
  Request made;
  const int32_t longest = backend_.limits().max_model_len;
  made.prompt = prefixes_[pick(prefixes_.size())];
  made.prompt.resize(std::min(made.prompt.size(), static_cast<size_t>(pick(200))));
  const size_t own = 1 + pick(chance(3) ? 60 : 8);
  for (size_t i = 0; i < own; ++i) made.prompt.push_back(static_cast<TokenId>(pick(kVocab)));
  made.sampling = make_sampling();
  made.stop.max_tokens = static_cast<int32_t>(1 + pick(chance(4) ? 120 : 25));
  made.stop.min_tokens = chance(4) ? static_cast<int32_t>(pick(20)) : 0;
  made.stop.min_tokens = std::min(made.stop.min_tokens, made.stop.max_tokens);
  made.stop.ignore_eos = chance(3);
  if (chance(4)) made.stop.stop_token_ids = {static_cast<TokenId>(pick(256))};
  if (chance(4)) made.stop.stop_strings = {{static_cast<char>('a' + pick(26))}, "th"};
  made.cache_salt = pick(3);
  if (!chance(20)) {  // else it may be too long, and must be refused with an error
    const auto room = std::min<int64_t>(longest, int64_t{backend_.limits().num_blocks} * 16);
    made.prompt.resize(std::min(made.prompt.size(), static_cast<size_t>(room - 1)));
    made.stop.max_tokens =
        std::min(made.stop.max_tokens,
                 static_cast<int32_t>(room) - static_cast<int32_t>(made.prompt.size()));
    made.stop.min_tokens = std::min(made.stop.min_tokens, made.stop.max_tokens);
  }
  return made;
}

void Simulation::make_calls() {
  for (uint64_t i = 0; i < 1 + pick(4); ++i) {
    std::vector<TokenId>& prefix = prefixes_.emplace_back(pick(200));
    for (TokenId& id : prefix) id = static_cast<TokenId>(pick(kVocab));
  }
  TimeNs at_ns = 0;
  const uint64_t count = 3 + pick(25);
  for (uint64_t i = 0; i < count; ++i) {
    if (!chance(3)) at_ns += static_cast<TimeNs>(pick(200) * kNsPerMs);  // else part of a burst
    Call call;
    call.at_ns = at_ns;
    call.choices.assign(chance(4) ? 2 + pick(4) : 1, make_request());
    for (Request& choice : call.choices) choice.sampling.seed += pick(1000);
    if (chance(4)) call.patience_ns = static_cast<TimeNs>(pick(400) * kNsPerMs) + 1;
    call.reads_late = chance(5);
    const Request& first = call.choices[0];
    const auto total = static_cast<int64_t>(first.prompt.size()) + first.stop.max_tokens;
    call.possible = total <= backend_.limits().max_model_len &&
                    kv::blocks_for_tokens(total) <= backend_.limits().num_blocks;
    calls_.push_back(std::move(call));
  }
  std::reverse(calls_.begin(), calls_.end());
}

void Simulation::make_due_calls() {
  while (!calls_.empty() && calls_.back().at_ns <= clock_.now_ns()) {
    Call call = std::move(calls_.back());
    calls_.pop_back();
    submit(call);
  }
}

void Simulation::submit(Call& call) {
  auto submission = engine_->submit(call.choices, nullptr);
  if (submission.ok() != call.possible) return problem("accepted exactly what is not possible");
  if (!submission.ok()) {
    ++events_.impossible;
    return;
  }
  if (submission->refusal != nullptr) {
    ++events_.refusals;
    const double wait_s = submission->refusal->retry_after_s;
    if (stopped_) return;
    if (wait_s < 0.1 || wait_s > 60) return problem(fmt::format("Retry-After is {} s", wait_s));
    call.at_ns = clock_.now_ns() + static_cast<TimeNs>(wait_s * 1e9);
    const auto place = std::find_if(calls_.rbegin(), calls_.rend(),
                                    [&](const Call& other) { return other.at_ns > call.at_ns; });
    calls_.insert(place.base(), std::move(call));
    return;
  }
  for (size_t i = 0; i < call.choices.size(); ++i) {
    Client& client = clients_.emplace_back();
    client.request = call.choices[i];
    client.channel = submission->channels[i];
    client.gives_up_ns = call.patience_ns == 0 ? 0 : clock_.now_ns() + call.patience_ns;
    client.reads_late = call.reads_late;
    client.last_news_step = steps_;
  }
}

void Simulation::read(Client& client) {
  while (const engine::TokenEvent* event = client.channel->next()) {
    if (client.finish != FinishReason::kNone) return problem("an event after the last one");
    client.finish = event->finish;
    client.last_news_step = steps_;
    if (event->token < 0) continue;
    client.tokens.push_back(event->token);
    client.logprobs.push_back(event->logprob);
  }
}

// After each step: who gave up before it must have ended in it, and who is decoding moved on.
void Simulation::let_clients_act() {
  for (Client& client : clients_) {
    if (!client.reads_late) read(client);
    if (client.gave_up && client.channel->facts().finished_ns == 0) {
      problem("still working for a client that left before this step");
    }
    check_progress(client);
    if (!client.gave_up && client.gives_up_ns != 0 && client.gives_up_ns <= clock_.now_ns()) {
      client.gave_up = true;
      engine_->cancel(*client.channel);
    }
  }
}

// While the pool is whole, a sequence that gave its first token gives one more in every step. After
// a fault, the paused ones must first be computed again, each position once at one token per step
// at worst.
void Simulation::check_progress(const Client& client) {
  if (client.tokens.empty() || client.reads_late || client.finish != FinishReason::kNone) return;
  const engine::RequestFacts& facts = client.channel->facts();
  const uint64_t calm_since = std::max(client.last_news_step, last_fault_step_);
  const uint64_t patience = facts.preemptions == 0 ? 1 : 12 * 340;
  if (steps_ > calm_since + patience) problem("a running sequence starves");
}

void Simulation::inject_faults() {
  if (chance(40)) backend_.stall(static_cast<TimeNs>(pick(2000) * kNsPerMs));
  const int32_t whole = backend_.limits().num_blocks;
  if (pool_limit_ < whole && steps_ >= limit_ends_step_) {
    pool_limit_ = whole;
    engine_->set_pool_limit(whole);
    last_fault_step_ = steps_ + 1;
  } else if (chance(60)) {
    pool_limit_ = static_cast<int32_t>(pick(static_cast<uint64_t>(whole) + 1));
    limit_ends_step_ = steps_ + 1 + pick(40);
    engine_->set_pool_limit(pool_limit_);
  }
  if (pool_limit_ < whole) last_fault_step_ = steps_ + 1;
  if (!stopped_ && chance(5000)) {
    engine_->stop();
    stopped_ = true;
    calls_.clear();
  }
}

bool Simulation::finished() const {
  return calls_.empty() && std::all_of(clients_.begin(), clients_.end(), [](const Client& client) {
           return client.channel->facts().finished_ns != 0;
         });
}

std::string Simulation::run() {
  // Every call's tokens one by one, three times over (pauses), bound the number of steps.
  constexpr uint64_t kTooManySteps = 100'000;
  clock_.advance(1);  // facts use 0 for "not yet"
  while (problem_.empty() && !finished()) {
    make_due_calls();
    if (stopped_) break;
    const bool worked = engine_->step();
    ++steps_;
    engine_->check_invariants();
    let_clients_act();
    inject_faults();
    if (!worked && pool_limit_ == backend_.limits().num_blocks) {
      const bool idle = engine_->stats().requests_waiting.value() == 0;
      if (!idle && steps_ > last_fault_step_ + 1) problem("idle while requests wait");
      clock_.advance(calls_.empty() ? kNsPerMs
                                    : std::max<TimeNs>(1, calls_.back().at_ns - clock_.now_ns()));
    }
    if (steps_ > kTooManySteps) problem("some request never ends");
  }
  if (problem_.empty()) check_end();
  return problem_;
}

void Simulation::check_answer(const Client& client) {
  const engine::SoloAnswer solo = engine::solo_run(client.request, tokenizer_, kVocab);
  const size_t got = client.tokens.size();
  if (client.finish == FinishReason::kNone) return problem("a taken request never ended");
  if (got > solo.tokens.size() ||
      !std::equal(client.tokens.begin(), client.tokens.end(), solo.tokens.begin())) {
    return problem("an answer differs from its solo run");
  }
  if (!std::equal(client.logprobs.begin(), client.logprobs.end(), solo.logprobs.begin())) {
    return problem("a logprob differs from its solo run");
  }
  switch (client.finish) {
    case FinishReason::kCancelled:
      ++events_.cancelled;
      if (!client.gave_up) problem("cancelled, though its client waits");
      return;
    case FinishReason::kError:
      ++events_.failed_by_stop;
      if (!stopped_) problem("an admitted request failed");
      return;
    default:
      break;
  }
  ++events_.answers;
  if (got != solo.tokens.size() || client.finish != solo.finish) {
    problem(fmt::format("an answer ended after {} of {} tokens", got, solo.tokens.size()));
  }
}

// Cached tokens must come from somebody under the same salt whose tokens begin alike.
void Simulation::check_cached(const Client& client) {
  const auto cached = static_cast<size_t>(client.channel->facts().cached_prompt_tokens);
  events_.cached_tokens += cached;
  if (cached == 0) return;
  const bool has_source = std::any_of(clients_.begin(), clients_.end(), [&](const Client& other) {
    if (&other == &client || other.request.cache_salt != client.request.cache_salt) return false;
    std::vector<TokenId> tokens = other.request.prompt;
    tokens.insert(tokens.end(), other.tokens.begin(), other.tokens.end());
    return tokens.size() >= cached &&
           std::equal(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(cached),
                      client.request.prompt.begin());
  });
  if (!has_source) problem("a prefix was shared across tenants, or came from nowhere");
}

void Simulation::check_end() {
  if (!stopped_) {
    engine_->set_pool_limit(backend_.limits().num_blocks);
    while (engine_->step()) {
    }
  }
  engine_->check_invariants();
  for (Client& client : clients_) {
    read(client);
    check_answer(client);
  }
  for (const Client& client : clients_) check_cached(client);
  const engine::EngineStats& stats = engine_->stats();
  const uint64_t ended = stats.finished_stop.value() + stats.finished_length.value() +
                         stats.finished_cancelled.value() + stats.finished_error.value();
  if (ended != clients_.size()) problem("the counters miss a request");
  if (!stopped_ && stats.kv_cache_usage.value() != 0) problem("blocks are held for nobody");
  events_.preemptions += stats.preemptions.value();
  events_.steps += stats.steps.value();
}

void Simulation::problem(const std::string& text) {
  if (problem_.empty()) problem_ = fmt::format("step {}: {}", steps_, text);
}

}  // namespace puna::sim
