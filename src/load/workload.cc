// SPDX-License-Identifier: Apache-2.0
#include "load/workload.h"

#include <algorithm>
#include <numeric>

#include "load/text_numbers.h"

namespace puna::load {
namespace {

constexpr double kMaxWeight = 1e6;
constexpr double kMaxDurationS = 1e7;

// An index with a chance in proportion to its weight.
int32_t pick(const std::vector<Sender>& senders, Random& random) {
  double total = 0;
  for (const Sender& sender : senders) total += sender.weight;
  double left = random.uniform() * total;
  for (size_t i = 0; i + 1 < senders.size(); ++i) {
    left -= senders[i].weight;
    if (left < 0) return static_cast<int32_t>(i);
  }
  return static_cast<int32_t>(senders.size()) - 1;
}

Result<int32_t> index_of(const std::vector<Sender>& senders, std::string_view name,
                         std::string_view kind) {
  for (size_t i = 0; i < senders.size(); ++i) {
    if (senders[i].name == name) return static_cast<int32_t>(i);
  }
  return Error(ErrorCode::kInvalidArgument, "the trace names the {} \"{}\", which no flag defines",
               kind, name);
}

// Draws arrivals one after another.
class Arrivals {
 public:
  Arrivals(const Workload& work, Random random) : work_(work), random_(random) {}

  // Seconds after the start, or none after the last of a trace.
  std::optional<double> next(size_t index) {
    if (!work_.trace.empty()) {
      if (index >= work_.trace.size()) return std::nullopt;
      return work_.trace[index].at_s;
    }
    if (work_.bursts) {
      const auto burst = index / static_cast<size_t>(work_.bursts->requests);
      return static_cast<double>(burst) * work_.bursts->every_s;
    }
    at_s_ += random_.exponential(1 / work_.rate);
    return at_s_;
  }

 private:
  const Workload& work_;
  Random random_;
  double at_s_ = 0;
};

// Who sends which lengths, in whose conversation.
class Contents {
 public:
  Contents(const Workload& work, Random random)
      : work_(work), random_(random), conversations_(work.turns > 1 ? kOpenConversations : 1) {}

  Result<PlannedRequest> next(size_t index) {
    PlannedRequest& talk = conversations_[index % conversations_.size()];
    const TraceEntry* entry = work_.trace.empty() ? nullptr : &work_.trace[index];
    if (talk.pieces.empty() || ++talk.turn >= work_.turns) RETURN_IF_ERROR(begin(talk, entry));
    // The answer before this turn is not the server's but as long: what is sent is known
    // beforehand.
    if (talk.turn > 0) talk.pieces.push_back(talk.output_tokens);
    const int32_t prompt = work_.prompt_tokens.draw(random_);
    const int32_t output = work_.output_tokens.draw(random_);
    talk.pieces.push_back(entry ? entry->prompt_tokens.value_or(prompt) : prompt);
    talk.output_tokens = entry ? entry->output_tokens.value_or(output) : output;
    return talk;
  }

 private:
  Result<> begin(PlannedRequest& talk, const TraceEntry* entry) {
    talk = PlannedRequest();
    talk.text_seed = random_.next();
    talk.tenant = pick(work_.tenants, random_);
    if (!work_.classes.empty()) talk.cls = pick(work_.classes, random_);
    if (entry != nullptr && !entry->tenant.empty()) {
      ASSIGN_OR_RETURN(talk.tenant, index_of(work_.tenants, entry->tenant, "tenant"));
    }
    if (entry != nullptr && !entry->cls.empty()) {
      ASSIGN_OR_RETURN(talk.cls, index_of(work_.classes, entry->cls, "class"));
    }
    return Ok{};
  }

  const Workload& work_;
  Random random_;
  std::vector<PlannedRequest> conversations_;
};

}  // namespace

Result<Sender> Sender::parse(std::string_view text) {
  Sender sender;
  std::string_view rest = text;
  const size_t equals = rest.find('=');
  const size_t colon = rest.rfind(':');
  if (colon != std::string_view::npos && (equals == std::string_view::npos || colon > equals)) {
    const auto weight = parse_number<double>(rest.substr(colon + 1));
    if (!weight || !(*weight > 0) || *weight > kMaxWeight) {
      return Error(ErrorCode::kInvalidArgument, "\"{}\": the weight must be above 0, at most {}",
                   text, kMaxWeight);
    }
    sender.weight = *weight;
    rest = rest.substr(0, colon);
  }
  sender.name = std::string(rest.substr(0, equals));
  if (equals != std::string_view::npos) sender.key = std::string(rest.substr(equals + 1));
  const bool line_break = text.find_first_of("\r\n") != std::string_view::npos;
  if (sender.name.empty() || line_break) {
    return Error(ErrorCode::kInvalidArgument, "\"{}\" names nobody: use NAME=KEY:WEIGHT", text);
  }
  return sender;
}

Result<Bursts> Bursts::parse(std::string_view text) {
  const std::vector<std::string_view> fields = split(text, ':');
  Bursts bursts;
  if (fields.size() == 2) {
    bursts.requests = parse_number<int32_t>(fields[0]).value_or(0);
    bursts.every_s = parse_number<double>(fields[1]).value_or(0);
  }
  if (bursts.requests >= 1 && bursts.every_s > 0 && bursts.every_s <= kMaxDurationS) return bursts;
  return Error(ErrorCode::kInvalidArgument,
               "\"{}\" is no burst: use REQUESTS:SECONDS, as in 20:5 for 20 at once every 5 s",
               text);
}

int64_t PlannedRequest::prompt_tokens() const {
  return std::accumulate(pieces.begin(), pieces.end(), int64_t{0});
}

Result<std::vector<PlannedRequest>> plan_requests(const Workload& workload) {
  Workload work = workload;
  if (work.tenants.empty()) work.tenants.emplace_back();
  Random random(work.seed);
  Arrivals arrivals(work, random.fork());
  Contents contents(work, random.fork());
  std::vector<PlannedRequest> plan;
  for (;;) {
    if (work.requests > 0 && std::cmp_greater_equal(plan.size(), work.requests)) break;
    const std::optional<double> at_s = arrivals.next(plan.size());
    if (!at_s || (work.duration_s > 0 && *at_s >= work.duration_s)) break;
    if (plan.size() >= kMaxPlannedRequests || *at_s > kMaxDurationS) {
      return Error(ErrorCode::kInvalidArgument,
                   "that is more than {} requests: shorten the run or lower the rate",
                   kMaxPlannedRequests);
    }
    ASSIGN_OR_RETURN(PlannedRequest request, contents.next(plan.size()));
    request.at_ns = static_cast<TimeNs>(*at_s * kNsPerSecond);
    plan.push_back(std::move(request));
  }
  if (plan.empty()) {
    return Error(ErrorCode::kInvalidArgument, "there is nothing to send in {} s: raise the rate",
                 work.duration_s);
  }
  return plan;
}

}  // namespace puna::load
