// SPDX-License-Identifier: Apache-2.0
#include "load/chaos.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "load/chaos_watch.h"
#include "load/http_client.h"

namespace puna::load {
namespace {

constexpr int32_t kQuestions = 6;
constexpr int32_t kAnswerTokens = 24;
constexpr TimeNs kQuietTimeoutNs = 60 * kNsPerSecond;
constexpr TimeNs kGaugesEveryNs = 100 * kNsPerMs;
constexpr int64_t kMemorySlackBytes = int64_t{16} << 20U;

// The same few questions again and again; `turn` says which.
std::vector<PlannedRequest> questions(double rate, double duration_s, uint64_t seed) {
  Random random(seed);
  std::vector<PlannedRequest> plan;
  for (double at_s = 0; at_s < duration_s; at_s += random.exponential(1 / rate)) {
    PlannedRequest planned;
    planned.at_ns = static_cast<TimeNs>(at_s * kNsPerSecond);
    planned.turn = static_cast<int32_t>(plan.size() % kQuestions);
    planned.text_seed = seed * 1000 + static_cast<uint64_t>(planned.turn);
    planned.pieces = {30 + 17 * planned.turn};
    planned.output_tokens = kAnswerTokens;
    plan.push_back(std::move(planned));
  }
  return plan;
}

// One after another, so that nothing else runs meanwhile.
Result<std::vector<std::string>> quiet_answers(const Target& target, uint64_t seed) {
  std::vector<std::string> texts;
  for (const PlannedRequest& planned : questions(1, kQuestions * 50.0, seed)) {
    if (std::cmp_equal(texts.size(), kQuestions)) break;
    PlannedRequest now = planned;
    now.at_ns = 0;
    const LoadOptions options{.honour_retry_after = true,
                              .timeout_ns = kQuietTimeoutNs,
                              .scrape_every_ns = 0,
                              .keep_text = true};
    ASSIGN_OR_RETURN(const LoadResult result, run_load(target, options, {&now, 1}, {}));
    if (result.records.empty() || !result.records.front().done()) {
      return Error(ErrorCode::kUnavailable, "no answer while all is quiet: {}",
                   result.records.empty() ? "stopped" : result.records.front().error);
    }
    texts.push_back(result.records.front().text);
  }
  return texts;
}

Promise promise(std::string name, bool kept, std::string detail) {
  return {std::move(name), kept, std::move(detail)};
}

void judge_answers(const std::vector<Record>& records, const std::vector<std::string>& expected,
                   ChaosReport& report) {
  size_t different = 0;
  size_t unfinished = 0;
  size_t silent = 0;
  std::string first_error;
  for (const Record& record : records) {
    if (record.done()) {
      ++report.answered;
      different += record.text != expected[static_cast<size_t>(record.turn)] ? 1 : 0;
    } else if (record.outcome == Outcome::kFailed) {
      ++unfinished;
      if (first_error.empty()) first_error = record.error;
    }
    for (const Refusal& refusal : record.refusals) silent += refusal.retry_after_ns ? 0 : 1;
  }
  report.asked = records.size();
  report.promises.push_back(
      promise("admitted-finishes", unfinished == 0 && report.answered > 0,
              unfinished == 0 ? fmt::format("{} of {} answered, the rest refused in the end",
                                            report.answered, report.asked)
                              : fmt::format("{} failed, as: {}", unfinished, first_error)));
  report.promises.push_back(
      promise("same-answers", different == 0,
              fmt::format("{} of {} differ from the quiet ones", different, report.answered)));
  const VandalTally& vandals = report.vandals;
  report.promises.push_back(
      promise("refusals-say-when", silent + vandals.refusals_without_wait == 0,
              fmt::format("{} without Retry-After", silent + vandals.refusals_without_wait)));
}

void judge_vandals(ChaosReport& report) {
  std::string detail = "all bad requests were told so";
  if (!report.vandals.accepted.empty()) detail = report.vandals.accepted.begin()->first;
  report.promises.push_back(promise("poison-is-refused", report.vandals.accepted.empty(), detail));
}

void judge_watch(const WatchResult& watch, const ChaosOptions& options, ChaosReport& report) {
  report.pauses = watch.pauses;
  report.promises.push_back(
      promise("always-observable", watch.unanswered == 0 && watch.answered > 0,
              fmt::format("/ready and /metrics: {} answers, {} failures{}{}", watch.answered,
                          watch.unanswered,
                          watch.first_failure.empty() ? "" : ", as: ", watch.first_failure)));
  if (options.pid == 0) return;
  const auto half = watch.resident.begin() + static_cast<std::ptrdiff_t>(watch.resident.size() / 2);
  const auto peak = [](auto from, auto to) { return from == to ? 0 : *std::max_element(from, to); };
  const int64_t first = peak(watch.resident.begin(), half);
  const int64_t second = peak(half, watch.resident.end());
  report.promises.push_back(
      promise("memory-flat", first > 0 && second <= first + kMemorySlackBytes,
              fmt::format("resident at most {} MiB in the first half, {} MiB in the second",
                          first >> 20U, second >> 20U)));
}

// After the vandals have gone, nothing may be left of their work.
void judge_rest(const Target& target, TimeNs settle_ns, ChaosReport& report) {
  const SteadyClock clock;
  const TimeNs end_ns = clock.now_ns() + settle_ns;
  const std::string request = http_request("GET", "/metrics", target.url, target.key_headers(), "");
  std::string metrics;
  MetricSample last;
  do {
    const auto reply = call_once(target.url, request, 5 * kNsPerSecond);
    if (!reply.ok()) continue;
    std::this_thread::sleep_for(std::chrono::nanoseconds(kGaugesEveryNs));
    metrics = reply->body;
    last = read_metrics(metrics);
    if (last.running + last.waiting + last.kv_usage == 0) break;
  } while (clock.now_ns() < end_ns);
  report.promises.push_back(
      promise("nothing-stuck", !metrics.empty() && last.running + last.waiting + last.kv_usage == 0,
              fmt::format("{} running, {} waiting, {:.1f} % of KV held in the end", last.running,
                          last.waiting, 100 * last.kv_usage)));
  const auto allocations = metric_value(metrics, "puna:allocs_after_seal_total");
  if (allocations) {
    report.promises.push_back(promise("sealed", *allocations == 0,
                                      fmt::format("{} allocations after the seal", *allocations)));
  }
}

}  // namespace

bool ChaosReport::kept() const {
  return std::all_of(promises.begin(), promises.end(), [](const Promise& p) { return p.kept; });
}

Result<ChaosReport> run_chaos(const Target& target, const ChaosOptions& options,
                              const std::function<void(std::string_view)>& say) {
  ASSIGN_OR_RETURN(Endpoints endpoints, resolve(target.url));
  if (say) say("taking answers while all is quiet");
  ASSIGN_OR_RETURN(const std::vector<std::string> expected, quiet_answers(target, options.seed));

  if (say) say(fmt::format("chaos for {} s", options.duration_s));
  Vandals vandals(target, std::move(endpoints), options.seed);
  ChaosWatch watch(target, options.pid, options.duration_s);
  vandals.start();
  watch.start();
  const LoadOptions patient{.honour_retry_after = true,
                            .max_attempts = 1000,
                            .timeout_ns = 120 * kNsPerSecond,
                            .scrape_every_ns = 0,
                            .keep_text = true};
  const auto plan = questions(options.rate, options.duration_s, options.seed);
  // The flood goes on as long as there is a plan; then whoever still waits must get in.
  const TimeNs chaos_end_ns =
      SteadyClock().now_ns() + static_cast<TimeNs>(options.duration_s * kNsPerSecond);
  ChaosReport report;
  bool over = false;
  const auto end_in_time = [&](const Progress&) {
    if (!over && SteadyClock().now_ns() >= chaos_end_ns) {
      over = true;
      report.vandals = vandals.stop();
      if (say) say("the vandals have left; waiting for the last answers");
    }
    return true;
  };
  const auto result = run_load(target, patient, plan, end_in_time);
  if (!over) report.vandals = vandals.stop();
  const WatchResult watched = watch.stop();
  if (!result.ok()) return result.error();

  judge_answers(result->records, expected, report);
  judge_vandals(report);
  judge_watch(watched, options, report);
  judge_rest(target, options.settle_ns, report);
  const auto again = quiet_answers(target, options.seed);
  report.promises.push_back(promise("alive", again.ok() && *again == expected,
                                    again.ok() ? "it answers as before" : again.error().message()));
  return report;
}

}  // namespace puna::load
