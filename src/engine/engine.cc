// SPDX-License-Identifier: Apache-2.0
// The other threads' side of the engine: submit, cancel, drain, stop.
#include "engine/engine.h"

#include <chrono>

#include "base/check.h"
#include "engine/engine_state.h"
#include "engine/submission.h"

namespace puna::engine {

Engine::Engine(const EngineConfig& config, Backend& backend, const model::Tokenizer& tokenizer,
               const Clock& clock)
    : state_(std::make_unique<State>(config, backend, tokenizer, clock)) {}

Engine::~Engine() { stop(); }

namespace {

std::unique_ptr<Refusal> draining_refusal() {
  auto refusal = std::make_unique<Refusal>();
  refusal->message = "The server is shutting down and takes no new requests.";
  refusal->reason = RefusalReason::kDraining;
  refusal->draining = true;
  return refusal;
}

// Room in the queue, taken by submit() before anything is built. Any thread.
struct QueueClaim {
  int64_t requests = 0;
  int64_t tokens = 0;
  int64_t requests_ahead = 0;
  int64_t tokens_ahead = 0;
};

}  // namespace

Result<Engine::Submission> Engine::submit(std::vector<Request> requests, Waker* waker) {
  State& state = *state_;
  if (requests.empty() || requests.size() > static_cast<size_t>(kMaxChoices)) {
    return Error(ErrorCode::kInvalidArgument, "one call takes 1 to {} choices, but has {}",
                 kMaxChoices, requests.size());
  }
  QueueClaim claim{.requests = static_cast<int64_t>(requests.size())};
  for (const Request& request : requests) {
    RETURN_IF_ERROR(check_request(request, state.backend.limits()));
    claim.tokens += static_cast<int64_t>(request.prompt.size());
  }
  // Counted before looking at `draining`: stop() sets that first and then waits for the count.
  state.unfinished.fetch_add(claim.requests);
  if (state.draining.load()) {
    state.unfinished.fetch_sub(claim.requests);
    return Submission{.refusal = draining_refusal()};
  }
  claim.requests_ahead = state.queued_requests.fetch_add(claim.requests);
  claim.tokens_ahead = state.queued_tokens.fetch_add(claim.tokens);
  const int64_t requests_over =
      claim.requests_ahead + claim.requests - state.config.max_queued_requests;
  const int64_t tokens_over = claim.tokens_ahead + claim.tokens - state.config.max_queued_tokens;
  if (claim.requests_ahead > 0 && (requests_over > 0 || tokens_over > 0)) {
    state.queued_requests.fetch_sub(claim.requests);
    state.queued_tokens.fetch_sub(claim.tokens);
    state.unfinished.fetch_sub(claim.requests);
    state.stats.refusals.add();
    auto refusal = std::make_unique<Refusal>();
    refusal->tokens_ahead = claim.tokens_ahead;
    refusal->retry_after_s = state.drain_rate.seconds_until(tokens_over, requests_over);
    refusal->message =
        fmt::format("The queue is full: {} requests with {} prompt tokens wait. Retry in {:.1f} s.",
                    claim.requests_ahead, claim.tokens_ahead, refusal->retry_after_s);
    return Submission{.refusal = std::move(refusal)};
  }
  return Submission{.channels = state.enqueue(std::move(requests), waker)};
}

std::vector<ChannelPtr> Engine::State::enqueue(std::vector<Request> requests, Waker* waker) {
  std::vector<ChannelPtr> channels;
  channels.reserve(requests.size());
  const TimeNs now_ns = clock.now_ns();
  uint64_t group = 0;
  std::vector<std::unique_ptr<Sequence>> sequences;
  sequences.reserve(requests.size());
  for (Request& request : requests) {
    auto sequence = make_sequence(std::move(request), backend.limits(), tokenizer, waker);
    sequence->ticket = next_ticket.fetch_add(1);
    const bool same_prompt = !sequences.empty() && sequences.back()->tokens == sequence->tokens &&
                             sequences.back()->cache_salt == sequence->cache_salt;
    if (!same_prompt) group = sequence->ticket;
    sequence->group = group;
    sequence->channel->facts().submitted_ns = now_ns;
    channels.push_back(sequence->channel);
    sequences.push_back(std::move(sequence));
  }
  for (auto& sequence : sequences) CHECK(submitted.try_push(std::move(sequence)));
  notify();
  return channels;
}

Result<Quote> Engine::quote(const Request& request) const {
  const State& state = *state_;
  RETURN_IF_ERROR(check_request(request, state.backend.limits()));
  Quote quote{.admitted = !state.draining.load()};
  quote.tokens_ahead = state.queued_tokens.load(std::memory_order_relaxed);
  if (!quote.admitted) quote.refusal = draining_refusal();
  return quote;
}

void Engine::calibrate(TimeNs /*budget_ns*/) {}

void Engine::cancel(RequestChannel& channel) {
  channel.cancel();
  state_->notify();
}

void Engine::start() {
  CHECK(!state_->thread.joinable());
  state_->thread = std::thread([this] { state_->run(); });
}

bool Engine::drain(TimeNs timeout_ns) {
  state_->draining.store(true);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::nanoseconds(timeout_ns);
  while (state_->unfinished.load() > 0) {
    if (std::chrono::steady_clock::now() >= deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

void Engine::stop() {
  state_->draining.store(true);
  state_->stopping.store(true);
  state_->notify();
  if (state_->thread.joinable()) state_->thread.join();
  state_->fail_unfinished();
}

void Engine::set_pool_limit(int32_t num_blocks) {
  state_->pool_limit.store(num_blocks, std::memory_order_release);
  state_->notify();
}

bool Engine::step() { return state_->step(); }
const EngineStats& Engine::stats() const { return state_->stats; }
const BackendLimits& Engine::limits() const { return state_->backend.limits(); }
bool Engine::draining() const { return state_->draining.load(); }
void Engine::check_invariants() const { state_->scheduler.check(); }

}  // namespace puna::engine
