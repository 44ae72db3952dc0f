// SPDX-License-Identifier: Apache-2.0
// The other threads' side of the engine: submit, cancel, drain, stop.
#include "engine/engine.h"

#include <fmt/format.h>

#include <algorithm>
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

int64_t bytes_of(const Request& request) {
  return request_bytes(static_cast<int64_t>(request.prompt.size()), request.stop.max_tokens,
                       request.sampling.top_logprobs);
}

Result<> check_bytes(int64_t bytes, int64_t limit) {
  if (limit == 0 || bytes <= limit) return Ok{};
  return Error(ErrorCode::kInvalidArgument,
               "This call needs {} bytes of the server's memory, and there are {} for all calls. "
               "Please reduce max_tokens, the number of choices or the number of logprobs.",
               bytes, limit);
}

}  // namespace

// Null: they are counted, and given back with the channels.
std::unique_ptr<Refusal> Engine::State::claim_bytes(const Request& first, int64_t bytes,
                                                    const Estimate& estimate) {
  const int64_t before = request_bytes->fetch_add(bytes);
  if (config.max_request_bytes == 0 || before + bytes <= config.max_request_bytes) return nullptr;
  request_bytes->fetch_sub(bytes);
  auto refusal = std::make_unique<Refusal>();
  refusal->retry_after_s = std::clamp(estimate.wait_s, 1.0, 60.0);
  refusal->tokens_ahead = admission.queued_tokens();
  const int64_t fixed = engine::request_bytes(static_cast<int64_t>(first.prompt.size()), 0,
                                              first.sampling.top_logprobs);
  const int64_t one = bytes_of(first) - fixed;
  const int64_t left = config.max_request_bytes - before - fixed;
  if (left > 0 && one > 0) {
    refusal->max_tokens_now = static_cast<int32_t>(left * first.stop.max_tokens / one);
  }
  refusal->message = fmt::format(
      "The memory for requests is taken: {} of {} bytes, and this call needs {}. Retry in {:.2f} "
      "s.",
      before, config.max_request_bytes, bytes, refusal->retry_after_s);
  return refusal;
}

Result<Engine::Submission> Engine::submit(std::vector<Request> requests, Waker* waker) {
  State& state = *state_;
  if (requests.empty() || requests.size() > static_cast<size_t>(kMaxChoices)) {
    return Error(ErrorCode::kInvalidArgument, "one call takes 1 to {} choices, but has {}",
                 kMaxChoices, requests.size());
  }
  int64_t tokens = 0;
  int64_t bytes = 0;
  for (Request& request : requests) {
    apply_policy(request, state.config, state.backend.limits());
    RETURN_IF_ERROR(check_request(request, state.config, state.backend.limits()));
    if (request.request_class != requests.front().request_class) {
      return Error(ErrorCode::kInvalidArgument, "the choices of one call have one class");
    }
    tokens += static_cast<int64_t>(request.prompt.size());
    bytes += bytes_of(request);
  }
  RETURN_IF_ERROR(check_bytes(bytes, state.config.max_request_bytes));
  // Counted before looking at `draining`: stop() sets that first and then waits for the count.
  const auto count = static_cast<int64_t>(requests.size());
  state.unfinished.fetch_add(count);
  if (state.draining.load()) {
    state.unfinished.fetch_sub(count);
    return Submission{.refusal = draining_refusal()};
  }
  const Request& first = requests.front();
  const Claim claim = state.admission.claim(first, count, tokens);
  const TimeNs now_ns = state.clock.now_ns();
  const Estimate estimate = state.admission.estimate(first, claim, now_ns);
  auto refusal = state.admission.judge(first, claim, estimate, now_ns);
  if (!refusal) refusal = state.claim_bytes(first, bytes, estimate);
  if (refusal) {
    state.admission.give_back(claim);
    state.unfinished.fetch_sub(count);
    state.stats.refusals.add();
    state.stats.class_refusals[claim.rank].add();
    return Submission{.refusal = std::move(refusal)};
  }
  return Submission{.channels = state.enqueue(std::move(requests), estimate, waker)};
}

std::vector<ChannelPtr> Engine::State::enqueue(std::vector<Request> requests,
                                               const Estimate& estimate, Waker* waker) {
  std::vector<ChannelPtr> channels;
  channels.reserve(requests.size());
  const TimeNs now_ns = clock.now_ns();
  uint64_t group = 0;
  std::vector<std::unique_ptr<Sequence>> sequences;
  sequences.reserve(requests.size());
  for (Request& request : requests) {
    MemoryClaim memory(request_bytes, bytes_of(request));
    auto sequence = make_sequence(std::move(request), config, backend.limits(), tokenizer, waker);
    sequence->expected_ttft_s = estimate.ttft_s;
    sequence->accounted_ns = now_ns;
    sequence->ticket = next_ticket.fetch_add(1);
    const bool same_prompt = !sequences.empty() && sequences.back()->tokens == sequence->tokens &&
                             sequences.back()->cache_salt == sequence->cache_salt;
    if (!same_prompt) group = sequence->ticket;
    sequence->group = group;
    RequestFacts& facts = sequence->channel->facts();
    facts.submitted_ns = now_ns;
    facts.quoted_ttft_p50_ns = static_cast<TimeNs>(estimate.ttft_p50_s * kNsPerSecond);
    facts.quoted_ttft_p95_ns = static_cast<TimeNs>(estimate.ttft_p95_s * kNsPerSecond);
    sequence->channel->hold(std::move(memory));
    channels.push_back(sequence->channel);
    sequences.push_back(std::move(sequence));
  }
  for (auto& sequence : sequences) CHECK(submitted.try_push(std::move(sequence)));
  notify();
  return channels;
}

Result<Quote> Engine::quote(const Request& request) const {
  const State& state = *state_;
  Request asked = request;
  apply_policy(asked, state.config, state.backend.limits());
  RETURN_IF_ERROR(check_request(asked, state.config, state.backend.limits()));
  const Claim claim = state.admission.look(asked, 1, static_cast<int64_t>(asked.prompt.size()));
  const TimeNs now_ns = state.clock.now_ns();
  const Estimate estimate = state.admission.estimate(asked, claim, now_ns);
  Quote quote{.ttft_p50_s = estimate.ttft_p50_s,
              .ttft_p95_s = estimate.ttft_p95_s,
              .end_p50_s = estimate.end_p50_s,
              .end_p95_s = estimate.end_p95_s,
              .tokens_ahead = claim.tokens_ahead};
  quote.refusal = state.draining.load() ? draining_refusal()
                                        : state.admission.judge(asked, claim, estimate, now_ns);
  quote.admitted = quote.refusal == nullptr;
  return quote;
}

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

int64_t Engine::request_bytes() const { return state_->request_bytes->load(); }
bool Engine::step() { return state_->step(); }
const EngineStats& Engine::stats() const { return state_->stats; }
const BackendLimits& Engine::limits() const { return state_->backend.limits(); }
bool Engine::draining() const { return state_->draining.load(); }
void Engine::check_invariants() const { state_->scheduler.check(); }

}  // namespace puna::engine
