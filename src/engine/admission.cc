// SPDX-License-Identifier: Apache-2.0
#include "engine/admission.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace puna::engine {
namespace {

constexpr double kShortestRetryS = 0.01;
constexpr double kLongestRetryS = 60;  // clients give up on longer waits
constexpr double kShareOfFree = 3;     // of the queue that one tenant may have, over what is free
constexpr std::array<std::string_view, kNumClasses> kClassNames = {"interactive", "batch",
                                                                   "background"};

double retry_in(double wait_s) { return std::clamp(wait_s, kShortestRetryS, kLongestRetryS); }

}  // namespace

Admission::Admission(const EngineConfig& config, const BackendLimits& limits)
    : config_(config), limits_(limits), tenants_(kNumClasses * config.tenants.size()) {
  double sum = 0;
  for (const TenantPolicy& tenant : config.tenants) sum += tenant.weight;
  mean_weight_ = sum / static_cast<double>(config.tenants.size());
  load_.store({});
}

Claim Admission::claim(const Request& request, int64_t requests, int64_t tokens) {
  Claim claim{.rank = index_of(request.request_class),
              .tenant = request.tenant,
              .requests = requests,
              .tokens = tokens};
  claim.class_requests = classes_[claim.rank].requests.fetch_add(requests);
  claim.class_tokens = classes_[claim.rank].tokens.fetch_add(tokens);
  TenantQueue& own = tenant_queue(claim.rank, static_cast<size_t>(claim.tenant));
  claim.own_requests = own.requests.fetch_add(requests);
  claim.tenant_tokens = own.tokens.fetch_add(tokens);
  fill_ahead(claim);
  return claim;
}

void Admission::give_back(const Claim& claim) {
  classes_[claim.rank].requests.fetch_sub(claim.requests);
  classes_[claim.rank].tokens.fetch_sub(claim.tokens);
  TenantQueue& own = tenant_queue(claim.rank, static_cast<size_t>(claim.tenant));
  own.requests.fetch_sub(claim.requests);
  own.tokens.fetch_sub(claim.tokens);
}

Claim Admission::look(const Request& request, int64_t requests, int64_t tokens) const {
  Claim claim{.rank = index_of(request.request_class),
              .tenant = request.tenant,
              .requests = requests,
              .tokens = tokens};
  claim.class_requests = queued_requests(claim.rank);
  claim.class_tokens = queued_tokens(claim.rank);
  const TenantQueue& own = tenant_queue(claim.rank, static_cast<size_t>(claim.tenant));
  claim.own_requests = own.requests.load(kRelaxed);
  claim.tenant_tokens = own.tokens.load(kRelaxed);
  fill_ahead(claim);
  return claim;
}

void Admission::fill_ahead(Claim& claim) const {
  claim.tenant_requests = claim.own_requests;
  for (size_t rank = 0; rank < kNumClasses; ++rank) {
    const bool own = rank == claim.rank;
    const int64_t requests = own ? claim.class_requests : queued_requests(rank);
    const int64_t tokens = own ? claim.class_tokens : queued_tokens(rank);
    claim.all_requests += requests;
    claim.all_tokens += tokens;
    if (!own) {
      const TenantQueue& queue = tenant_queue(rank, static_cast<size_t>(claim.tenant));
      claim.tenant_requests += queue.requests.load(kRelaxed);
      claim.tenant_tokens += queue.tokens.load(kRelaxed);
    }
    if (rank > claim.rank) continue;
    claim.requests_ahead += requests;
    claim.tokens_ahead += tokens;
  }
  if (config_.tenants.size() > 1) fill_turns(claim);
}

// Tenants that wait in its class have their turns by weight (FairShare).
void Admission::fill_turns(Claim& claim) const {
  const auto tenant = static_cast<size_t>(claim.tenant);
  double sum = 0;
  for (size_t other = 0; other < config_.tenants.size(); ++other) {
    const bool waits = tenant_queue(claim.rank, other).requests.load(kRelaxed) > 0;
    if (waits || other == tenant) sum += config_.tenants[other].weight;
  }
  claim.starts_per_turn = sum / config_.tenants[tenant].weight;
}

int64_t Admission::queued_requests() const {
  int64_t sum = 0;
  for (const ClassQueue& queue : classes_) sum += queue.requests.load(kRelaxed);
  return sum;
}

int64_t Admission::queued_tokens() const {
  int64_t sum = 0;
  for (const ClassQueue& queue : classes_) sum += queue.tokens.load(kRelaxed);
  return sum;
}

// Blocks, when it starts.
int64_t Admission::reserve(const Request& request) const {
  const ClassPolicy& policy = config_.classes[index_of(request.request_class)];
  const int32_t output =
      request.max_tokens_given ? request.stop.max_tokens : policy.default_output_tokens;
  return kv::blocks_for_tokens(static_cast<int64_t>(request.prompt.size()) + output);
}

// How many start until it does, itself among them: others of its class, and of other classes and
// tenants in between, as their turns were lately. Those that wait before it in its class are the
// most there can be. One that wants more blocks than are free starts when so many others could
// have.
int64_t Admission::starts_until(const Claim& claim, int64_t blocks, const Load& load) const {
  const DrainRate& rate = classes_[claim.rank].drain_rate;
  if (claim.requests_ahead == 0 && blocks > load.free_blocks && load.starts.mean_blocks > 0) {
    return static_cast<int64_t>(std::ceil(static_cast<double>(blocks) / load.starts.mean_blocks));
  }
  if (rate.requests_per_s() <= 0 || load.starts_per_s <= 0) return claim.requests_ahead + 1;
  const double turns = std::max(1.0, load.starts_per_s / rate.requests_per_s());
  const double own = std::min(static_cast<double>(claim.class_requests + 1),
                              static_cast<double>(claim.own_requests + 1) * claim.starts_per_turn);
  return static_cast<int64_t>(std::ceil(turns * own));
}

StepOutlook step_outlook(const Load& load, const EngineConfig& config,
                         const BackendLimits& limits) {
  const TimeNs usual_ns = config.classes.front().tpot_target_ns;
  const double target_s = load.tpot_target_s > 0 ? load.tpot_target_s : to_seconds(usual_ns);
  return {load.times, load.decodes, config.chunk_sizing ? target_s : 0,
          std::min(config.prefill_chunk_tokens, limits.max_batch_tokens), limits.full_steps};
}

Estimate Admission::estimate(const Request& request, const Claim& claim, TimeNs now_ns) const {
  Estimate result;
  const Load load = load_.load();
  if (!load.times.ready) return result;
  result.known = true;
  const StepOutlook outlook = step_outlook(load, config_, limits_);
  const auto prompt = static_cast<int64_t>(request.prompt.size());
  const int64_t blocks = reserve(request);
  // Before anybody else, and with room: in the next step, after the prompts that have begun.
  const bool at_once =
      claim.requests_ahead == 0 && load.free_slots > 0 && blocks <= load.free_blocks;
  const int64_t starts = starts_until(claim, blocks, load);
  const double rows = at_once ? load.decodes.decode_rows : load.rows_at_start(starts);
  StepShape with_it = outlook.shape(rows);
  with_it.add_decode(prompt);
  result.tpot_p50_s = load.times.p50(with_it);
  result.tpot_p95_s = std::max(load.times.p95(with_it), load.tpot_target_s);
  result.wait_s = at_once ? 0.0 : std::max(0.0, load.seconds_until_starts(starts, now_ns));
  const double prompts_before = static_cast<double>(at_once ? load.prompt_backlog : 0);
  const double turn_s = at_once ? 0.0 : std::max(0.0, load.seconds_until_prompt(starts, now_ns));
  result.ttft_s = turn_s + load.times.p50(load.decodes) / 2 +
                  outlook.prompt_s(rows, prompts_before + static_cast<double>(prompt));
  result.ttft_p50_s = result.ttft_s * load.ttft_p50_factor;
  // The step that runs when it comes may have just begun.
  const double step_s =
      load.decodes.decode_rows > 0 ? std::max(load.times.p95(load.decodes), load.tpot_target_s) : 0;
  result.ttft_p95_s = result.ttft_s * load.ttft_p95_factor + step_s / 2;
  const double longest = request.stop.max_tokens - 1;
  const double output = load.mean_output > 0 ? std::min(longest, load.mean_output - 1) : longest;
  result.end_p50_s = result.ttft_p50_s + output * result.tpot_p50_s;
  result.end_p95_s = result.ttft_p95_s + longest * result.tpot_p95_s;
  return result;
}

std::unique_ptr<Refusal> Admission::judge(const Request& request, const Claim& claim,
                                          const Estimate& estimate, TimeNs now_ns) const {
  // First: a place in a full queue would not help a class that is not taken.
  const Rung rung = rung_.load(kRelaxed);
  if (refuses(rung, request.request_class)) {
    auto refusal = std::make_unique<Refusal>();
    refusal->reason = RefusalReason::kClassRefused;
    refusal->tokens_ahead = claim.tokens_ahead;
    // Until the queues above it are half as full.
    double wait_s = kShortestRetryS;
    for (size_t rank = 0; rank < claim.rank; ++rank) {
      wait_s = std::max(wait_s, classes_[rank].drain_rate.seconds_until(queued_tokens(rank) / 2,
                                                                        queued_requests(rank) / 2));
    }
    refusal->retry_after_s = wait_s;
    refusal->message = fmt::format("The server takes no {} requests while higher classes wait.",
                                   kClassNames[claim.rank]);
    return refusal;
  }
  if (auto refusal = queue_refusal(claim, estimate, now_ns)) return refusal;
  return estimate.known ? target_refusal(request, estimate, now_ns) : nullptr;
}

double Load::seconds_until(const std::array<double, kForecastStarts>& times_s, int64_t count,
                           TimeNs now_ns) const {
  if (starts.num_starts == 0 || count <= 0) return -1;
  const auto last = static_cast<size_t>(std::min(count, starts.num_starts) - 1);
  const auto beyond = static_cast<double>(count - starts.num_starts);
  if (beyond > 0 && starts_per_s <= 0) return -1;
  const double more_s = beyond > 0 ? beyond / starts_per_s : 0.0;
  return std::max(0.0, times_s[last] + more_s - to_seconds(now_ns - published_ns));
}

double Load::seconds_until_starts(int64_t count, TimeNs now_ns) const {
  return seconds_until(starts.starts_s, count, now_ns);
}

double Load::seconds_until_prompt(int64_t count, TimeNs now_ns) const {
  return seconds_until(starts.prompts_s, count, now_ns);
}

double Load::rows_at_start(int64_t count) const {
  if (starts.num_starts == 0) return decodes.decode_rows;
  return starts.rows[static_cast<size_t>(std::clamp<int64_t>(count, 1, starts.num_starts) - 1)];
}

double Admission::starts_per_s() const {
  double sum = 0;
  for (const ClassQueue& queue : classes_) sum += queue.drain_rate.requests_per_s();
  return sum;
}

// Places in the queue become free as those that wait start, whichever they are; prompt tokens as
// many of them as hold so many on average. Tokens of one class only as that class has its turns.
double Admission::places_free_in_s(const Claim& claim, int64_t requests, int64_t tokens,
                                   int64_t class_tokens, TimeNs now_ns) const {
  const auto starts_for = [](int64_t over, int64_t waiting_tokens, int64_t waiting) {
    const double each =
        static_cast<double>(std::max<int64_t>(waiting_tokens, 1)) / static_cast<double>(waiting);
    return over > 0 ? std::ceil(static_cast<double>(over) / each) : 0.0;
  };
  const Load load = load_.load();
  const DrainRate& rate = classes_[claim.rank].drain_rate;
  double starts = std::max(static_cast<double>(requests),
                           starts_for(tokens, claim.all_tokens, claim.all_requests));
  if (class_tokens > 0) {
    const double own = starts_for(class_tokens, claim.class_tokens, claim.class_requests);
    const double turns = rate.requests_per_s() > 0 ? load.starts_per_s / rate.requests_per_s() : 1;
    starts = std::max(starts, std::ceil(own * std::max(1.0, turns)));
  }
  const double wait_s = load.seconds_until_starts(static_cast<int64_t>(starts), now_ns);
  return wait_s < 0 ? rate.seconds_until(std::max(tokens, class_tokens), requests)
                    : retry_in(wait_s);
}

// With several tenants none fills the queue alone: each may have kShareOfFree times as much waiting
// as is still free, more by weight. So there is always room for one that comes late, and however
// many come, what they have waiting converges to their weights (dynamic thresholds: Choudhury and
// Hahne, IEEE/ACM Transactions on Networking 6, 1998). Requests over that; 0: none, and one whose
// tenant has nothing waiting is never over.
int64_t Admission::over_share(const Claim& claim) const {
  if (config_.tenants.size() < 2 || claim.tenant_requests == 0) return 0;
  const double weight = config_.tenants[static_cast<size_t>(claim.tenant)].weight / mean_weight_;
  const auto room = [&](int64_t limit, int64_t used) {
    return static_cast<int64_t>(kShareOfFree * weight * static_cast<double>(limit - used));
  };
  const int64_t requests = claim.tenant_requests + claim.requests -
                           room(config_.max_queued_requests, claim.all_requests);
  const int64_t tokens =
      claim.tenant_tokens + claim.tokens - room(config_.max_queued_tokens, claim.all_tokens);
  const int64_t each = std::max<int64_t>(1, claim.tenant_tokens / claim.tenant_requests);
  const int64_t over = std::max(requests, tokens > 0 ? 1 + (tokens - 1) / each : 0);
  return std::clamp<int64_t>(over, 0, claim.tenant_requests);
}

// Each start, whoever's it is, leaves room that the tenant's part grows by; those of its own also
// leave its part.
double Admission::wait_for_share_s(const Claim& claim, int64_t over, TimeNs now_ns) const {
  const Load load = load_.load();
  const double weight = config_.tenants[static_cast<size_t>(claim.tenant)].weight / mean_weight_;
  const double starts =
      std::ceil(static_cast<double>(over) / (kShareOfFree * weight + 1 / claim.starts_per_turn));
  const double wait_s = load.seconds_until_starts(static_cast<int64_t>(starts), now_ns);
  if (wait_s >= 0) return retry_in(wait_s);
  return classes_[claim.rank].drain_rate.seconds_until(0, static_cast<int64_t>(starts));
}

std::unique_ptr<Refusal> Admission::queue_refusal(const Claim& claim, const Estimate& estimate,
                                                  TimeNs now_ns) const {
  const ClassPolicy& policy = config_.classes[claim.rank];
  const int64_t requests_over = claim.all_requests + claim.requests - config_.max_queued_requests;
  const int64_t tokens_over = claim.all_tokens + claim.tokens - config_.max_queued_tokens;
  const int64_t class_over =
      claim.class_requests > 0 ? claim.class_tokens + claim.tokens - policy.max_queued_tokens : 0;
  const bool full =
      claim.all_requests > 0 && (requests_over > 0 || tokens_over > 0 || class_over > 0);
  const double limit_s = to_seconds(policy.max_queue_time_ns);
  const bool slow = limit_s > 0 && claim.requests_ahead > 0 && estimate.wait_s > limit_s &&
                    classes_[claim.rank].drain_rate.measured();
  const int64_t share_over = full ? 0 : over_share(claim);
  if (!full && !slow && share_over == 0) return nullptr;
  auto refusal = std::make_unique<Refusal>();
  refusal->tokens_ahead = claim.tokens_ahead;
  if (share_over > 0) {
    refusal->retry_after_s = wait_for_share_s(claim, share_over, now_ns);
    refusal->message = fmt::format(
        "The tenant's share of the queue is full: {} of its requests wait. Retry in {:.2f} s.",
        claim.tenant_requests, refusal->retry_after_s);
  } else if (full) {
    refusal->retry_after_s =
        places_free_in_s(claim, requests_over, tokens_over, class_over, now_ns);
    refusal->message =
        fmt::format("The queue is full: {} requests with {} prompt tokens wait. Retry in {:.2f} s.",
                    claim.all_requests, claim.all_tokens, refusal->retry_after_s);
  } else {
    refusal->retry_after_s = retry_in(estimate.wait_s - limit_s);
    refusal->message = fmt::format(
        "The wait would be {:.1f} s, over the limit of {:.1f} s for {} requests. Retry in {:.2f} "
        "s.",
        estimate.wait_s, limit_s, kClassNames[claim.rank], refusal->retry_after_s);
  }
  return refusal;
}

std::unique_ptr<Refusal> Admission::target_refusal(const Request& request, const Estimate& estimate,
                                                   TimeNs now_ns) const {
  auto refusal = std::make_unique<Refusal>();
  refusal->reason = RefusalReason::kDeadline;
  refusal->retry_after_s = retry_in(estimate.wait_s);
  if (request.deadline_ns != 0) {
    const double left_s = to_seconds(request.deadline_ns - now_ns);
    // Without max_tokens the answer is as long as the deadline lets it be.
    const double needed_s = request.max_tokens_given ? estimate.end_p50_s : estimate.ttft_p50_s;
    if (needed_s > left_s) {
      const double fit = (left_s - estimate.ttft_p50_s) / std::max(estimate.tpot_p50_s, 1e-9) + 1;
      refusal->max_tokens_now =
          fit < 1 ? 0 : static_cast<int32_t>(std::min<double>(fit, request.stop.max_tokens));
      refusal->message = fmt::format(
          "The deadline is in {:.3f} s, but the answer would take {:.3f} s; {} tokens would fit.",
          left_s, needed_s, refusal->max_tokens_now);
      return refusal;
    }
  }
  const double ttft_s = to_seconds(request.ttft_target_ns);
  if (ttft_s > 0 && estimate.ttft_p50_s > ttft_s) {
    refusal->message =
        fmt::format("The first token would take {:.3f} s, over the target of {:.3f} s.",
                    estimate.ttft_p50_s, ttft_s);
    return refusal;
  }
  const double tpot_s = to_seconds(request.tpot_target_ns);
  if (tpot_s > 0 && estimate.tpot_p50_s > tpot_s) {
    refusal->message = fmt::format("A token would take {:.4f} s, over the target of {:.4f} s.",
                                   estimate.tpot_p50_s, tpot_s);
    return refusal;
  }
  return nullptr;
}

double Admission::queue_fill(size_t rank) const {
  const ClassPolicy& policy = config_.classes[rank];
  const auto requests = static_cast<double>(queued_requests(rank));
  const auto tokens = static_cast<double>(queued_tokens(rank));
  double fill =
      std::max(requests / std::max(1, config_.max_queued_requests),
               tokens / static_cast<double>(std::max<int64_t>(
                            1, std::min(policy.max_queued_tokens, config_.max_queued_tokens))));
  const double rate = classes_[rank].drain_rate.requests_per_s();
  if (policy.max_queue_time_ns > 0 && rate > 0) {
    fill = std::max(fill, requests / rate / to_seconds(policy.max_queue_time_ns));
  }
  return fill;
}

void Admission::leave_queue(const Sequence& sequence) {
  ClassQueue& queue = classes_[index_of(sequence.request_class)];
  queue.requests.fetch_sub(1, kRelaxed);
  queue.tokens.fetch_sub(sequence.prompt_tokens, kRelaxed);
  TenantQueue& own =
      tenant_queue(index_of(sequence.request_class), static_cast<size_t>(sequence.tenant));
  own.requests.fetch_sub(1, kRelaxed);
  own.tokens.fetch_sub(sequence.prompt_tokens, kRelaxed);
}

void Admission::note_started(const Sequence& sequence) {
  ClassQueue& queue = classes_[index_of(sequence.request_class)];
  ++queue.started_requests;
  queue.started_tokens += sequence.prompt_tokens;
}

void Admission::end_step(TimeNs duration_ns) {
  for (ClassQueue& queue : classes_) {
    if (queue.started_requests > 0 || queue.requests.load(kRelaxed) > 0) {
      queue.drain_rate.note_step(duration_ns, queue.started_tokens, queue.started_requests);
    }
    queue.started_requests = 0;
    queue.started_tokens = 0;
  }
}

void Admission::publish(const Load& load, Rung rung) {
  load_.store(load);
  rung_.store(rung, kRelaxed);
}

}  // namespace puna::engine
