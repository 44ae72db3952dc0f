// SPDX-License-Identifier: Apache-2.0
#include "load/summary.h"

#include <algorithm>
#include <functional>

namespace puna::load {
namespace {

std::optional<double> tpot_of(const Record& record) {
  if (record.output_tokens < 2 || record.first_ns == 0) return std::nullopt;
  return ms_between(record.first_ns, record.last_ns) / (record.output_tokens - 1);
}

TimeNs first_sent(const Record& record) {
  return record.refusals.empty() ? record.sent_ns : record.refusals.front().sent_ns;
}

GroupSummary summarise_group(std::string name, const std::vector<Record>& records, const Slo& slo,
                             const std::function<bool(const Record&)>& belongs) {
  GroupSummary group;
  group.name = std::move(name);
  std::vector<double> ttft, tpot, itl, e2e, due_ttft, due_e2e, over_quote;
  for (const Record& record : records) {
    if (!belongs(record)) continue;
    ++group.requests;
    group.refused += record.outcome == Outcome::kRefused ? 1 : 0;
    group.failed += record.outcome == Outcome::kFailed ? 1 : 0;
    if (!record.done()) continue;
    ++group.done;
    group.good += slo.kept_by(record) ? 1 : 0;
    group.prompt_tokens += record.prompt_tokens;
    group.cached_tokens += record.cached_tokens;
    group.output_tokens += record.output_tokens;
    e2e.push_back(ms_between(record.sent_ns, record.end_ns));
    due_e2e.push_back(ms_between(record.due_ns, record.end_ns));
    if (record.first_ns != 0) {
      ttft.push_back(ms_between(record.sent_ns, record.first_ns));
      due_ttft.push_back(ms_between(record.due_ns, record.first_ns));
      if (record.quoted_ttft_ms > 0) over_quote.push_back(ttft.back() / record.quoted_ttft_ms);
    }
    if (const auto value = tpot_of(record)) tpot.push_back(*value);
    itl.insert(itl.end(), record.gaps_ms.begin(), record.gaps_ms.end());
  }
  group.ttft_ms = percentiles_of(std::move(ttft));
  group.ttft_over_quote = percentiles_of(std::move(over_quote));
  group.tpot_ms = percentiles_of(std::move(tpot));
  group.itl_ms = percentiles_of(std::move(itl));
  group.e2e_ms = percentiles_of(std::move(e2e));
  group.due_ttft_ms = percentiles_of(std::move(due_ttft));
  group.due_e2e_ms = percentiles_of(std::move(due_e2e));
  return group;
}

// When requests were taken and refused, by sender, to find out when a refused one would have been
// taken.
class Attempts {
 public:
  explicit Attempts(const std::vector<Record>& records) {
    for (const Record& record : records) {
      Sender& sender = senders_[{record.tenant, record.cls}];
      if (record.status == 200) sender.taken.push_back({record.sent_ns, record.wanted_tokens});
      for (const Refusal& refusal : record.refusals) {
        sender.refused.push_back({refusal.sent_ns, record.wanted_tokens});
      }
    }
    for (auto& [key, sender] : senders_) {
      std::sort(sender.taken.begin(), sender.taken.end());
      std::sort(sender.refused.begin(), sender.refused.end());
    }
  }

  // Until one at least as large was taken, or none was; see RefusalSummary::retry_after_error.
  std::optional<TimeNs> wait_after(const Record& record, const Refusal& refusal) const {
    const Sender& sender = senders_.at({record.tenant, record.cls});
    auto taken = std::upper_bound(sender.taken.begin(), sender.taken.end(),
                                  Attempt{refusal.sent_ns, INT64_MAX});
    while (taken != sender.taken.end() && taken->second < record.wanted_tokens) ++taken;
    if (taken == sender.taken.end()) return std::nullopt;
    auto refused = std::lower_bound(sender.refused.begin(), sender.refused.end(),
                                    Attempt{taken->first, INT64_MIN});
    TimeNs still_ns = refusal.sent_ns;
    while (refused != sender.refused.begin() && (--refused)->first > refusal.sent_ns) {
      if (refused->second > record.wanted_tokens) continue;
      still_ns = refused->first;
      break;
    }
    return (still_ns + taken->first) / 2 - refusal.sent_ns;
  }

 private:
  using Attempt = std::pair<TimeNs, int64_t>;  // when it was sent, and its tokens
  struct Sender {
    std::vector<Attempt> taken;
    std::vector<Attempt> refused;
  };
  std::map<std::pair<int32_t, int32_t>, Sender> senders_;
};

RefusalSummary summarise_refusals(const std::vector<Record>& records) {
  RefusalSummary summary;
  const Attempts sent(records);
  std::vector<double> latency, retry_after, errors;
  for (const Record& record : records) {
    const size_t attempts = record.refusals.size() + (record.status == 200 ? 1 : 0);
    if (!record.refusals.empty() && attempts > 1) {
      ++summary.came_back;
      const bool in = record.status == 200;
      summary.in_at_once += in && record.refusals.size() == 1 ? 1 : 0;
      summary.in_at_last += in && record.refusals.size() > 1 ? 1 : 0;
    }
    for (const Refusal& refusal : record.refusals) {
      ++summary.by_status[refusal.status];
      latency.push_back(ms_between(0, refusal.took_ns));
      if (!refusal.retry_after_ns) continue;
      ++summary.with_retry_after;
      retry_after.push_back(ms_between(0, *refusal.retry_after_ns));
      const auto wait_ns = sent.wait_after(record, refusal);
      if (!wait_ns || *wait_ns <= 0) continue;
      const auto wait = static_cast<double>(*wait_ns);
      errors.push_back(std::abs(static_cast<double>(*refusal.retry_after_ns) - wait) / wait);
    }
  }
  summary.latency_ms = percentiles_of(std::move(latency));
  summary.retry_after_ms = percentiles_of(std::move(retry_after));
  summary.retry_after_error = percentiles_of(std::move(errors));
  return summary;
}

size_t most_in_flight(const std::vector<Record>& records) {
  std::vector<std::pair<TimeNs, int>> changes;
  for (const Record& record : records) {
    changes.emplace_back(record.sent_ns, 1);
    changes.emplace_back(record.end_ns, -1);
  }
  std::sort(changes.begin(), changes.end());
  int64_t now = 0;
  int64_t most = 0;
  for (const auto& [at_ns, change] : changes) most = std::max(most, now += change);
  return static_cast<size_t>(most);
}

std::vector<GroupSummary> by_sender(const std::vector<Sender>& senders, int32_t Record::*index,
                                    const std::vector<Record>& records, const Slo& slo) {
  std::vector<GroupSummary> groups;
  for (size_t i = 0; i < senders.size(); ++i) {
    groups.push_back(summarise_group(senders[i].name, records, slo, [&](const Record& record) {
      return std::cmp_equal(record.*index, i);
    }));
  }
  return groups;
}

}  // namespace

bool Slo::kept_by(const Record& record) const {
  if (!record.done()) return false;
  if (ttft_ms && ms_between(record.due_ns, record.first_ns) > *ttft_ms) return false;
  if (tpot_ms && tpot_of(record).value_or(0) > *tpot_ms) return false;
  return !e2e_ms || ms_between(record.due_ns, record.end_ns) <= *e2e_ms;
}

Summary summarise(const LoadResult& result, const Target& target, TimeNs arrivals_ns,
                  const Slo& slo) {
  const std::vector<Record>& records = result.records;
  Summary summary;
  summary.all = summarise_group("all", records, slo, [](const Record&) { return true; });
  if (target.tenants.size() > 1) {
    summary.tenants = by_sender(target.tenants, &Record::tenant, records, slo);
  }
  summary.classes = by_sender(target.classes, &Record::cls, records, slo);
  summary.refusals = summarise_refusals(records);
  summary.most_in_flight = most_in_flight(records);
  std::vector<double> lags;
  for (const Record& record : records) {
    lags.push_back(ms_between(record.due_ns, first_sent(record)));
    if (record.outcome == Outcome::kFailed) {
      ++summary.errors[record.status == 0 || record.status == 200
                           ? record.error
                           : fmt::format("{}: {}", record.status, record.error)];
    }
    if (record.done() && !record.counted_by_server) summary.counted_by_server = false;
  }
  summary.send_lag_ms = percentiles_of(std::move(lags));
  const auto seconds = [](TimeNs time_ns) { return static_cast<double>(time_ns) / kNsPerSecond; };
  const auto per_s = [&](double count) {
    return result.took_ns > 0 ? count / seconds(result.took_ns) : 0;
  };
  const GroupSummary& all = summary.all;
  summary.duration_s = seconds(result.took_ns);
  if (arrivals_ns > 0) {
    summary.offered_per_s = static_cast<double>(all.requests) / seconds(arrivals_ns);
  }
  summary.requests_per_s = per_s(static_cast<double>(all.done));
  summary.goodput_per_s = per_s(static_cast<double>(all.good));
  summary.output_tokens_per_s = per_s(static_cast<double>(all.output_tokens));
  summary.total_tokens_per_s = per_s(static_cast<double>(all.output_tokens + all.prompt_tokens));
  return summary;
}

}  // namespace puna::load
