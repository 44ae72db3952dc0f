// SPDX-License-Identifier: Apache-2.0
#include "load/report.h"

#include <boost/json.hpp>
#include <iterator>

namespace puna::load {
namespace {

namespace json = boost::json;

// Above this the generator itself was late, and latencies from the send look better than they were.
constexpr double kLateMs = 20;
constexpr size_t kMaxErrorLines = 5;

json::object as_json(const Percentiles& of) {
  return {{"count", of.count}, {"mean", of.mean}, {"p50", of.p50}, {"p90", of.p90},
          {"p95", of.p95},     {"p99", of.p99},   {"max", of.max}};
}

json::object as_json(const GroupSummary& group) {
  return {{"name", group.name},
          {"requests", group.requests},
          {"completed", group.done},
          {"refused", group.refused},
          {"failed", group.failed},
          {"good", group.good},
          {"total_input_tokens", group.prompt_tokens},
          {"total_cached_tokens", group.cached_tokens},
          {"total_output_tokens", group.output_tokens},
          {"ttft_ms", as_json(group.ttft_ms)},
          {"ttft_over_quote", as_json(group.ttft_over_quote)},
          {"tpot_ms", as_json(group.tpot_ms)},
          {"itl_ms", as_json(group.itl_ms)},
          {"e2el_ms", as_json(group.e2e_ms)},
          {"ttft_from_due_ms", as_json(group.due_ttft_ms)},
          {"e2el_from_due_ms", as_json(group.due_e2e_ms)}};
}

json::object as_json(const RefusalSummary& refusals) {
  json::object by_status;
  for (const auto& [status, count] : refusals.by_status) by_status[std::to_string(status)] = count;
  return {{"by_status", std::move(by_status)},
          {"latency_ms", as_json(refusals.latency_ms)},
          {"with_retry_after", refusals.with_retry_after},
          {"retry_after_ms", as_json(refusals.retry_after_ms)},
          {"retry_after_error", as_json(refusals.retry_after_error)},
          {"came_back", refusals.came_back},
          {"taken_at_first_return", refusals.in_at_once},
          {"taken_later", refusals.in_at_last}};
}

json::value limit_json(const std::optional<double>& limit) {
  return limit ? json::value(*limit) : json::value();
}

json::array as_json(const std::vector<GroupSummary>& groups) {
  json::array out;
  for (const GroupSummary& group : groups) out.push_back(as_json(group));
  return out;
}

void append_row(std::string& out, std::string_view name, const Percentiles& of) {
  if (of.count == 0) return;
  fmt::format_to(std::back_inserter(out),
                 "{:<20} {:>9.1f} {:>9.1f} {:>9.1f} {:>9.1f} {:>9.1f} {:>9.1f}\n", name, of.mean,
                 of.p50, of.p90, of.p95, of.p99, of.max);
}

void append_refusals(std::string& out, const RefusalSummary& refusals) {
  if (refusals.by_status.empty()) return;
  auto end = std::back_inserter(out);
  fmt::format_to(end, "\nrefusals   ");
  for (const auto& [status, count] : refusals.by_status) {
    fmt::format_to(end, "{} x {}, ", count, status);
  }
  fmt::format_to(end, "{} with Retry-After", refusals.with_retry_after);
  if (refusals.retry_after_error.count > 0) {
    fmt::format_to(end, ", off by {:.0f} % in the median", 100 * refusals.retry_after_error.p50);
  }
  if (refusals.came_back > 0) {
    fmt::format_to(end, "\n           {} clients came back: {} taken at once, {} later",
                   refusals.came_back, refusals.in_at_once, refusals.in_at_last);
  }
  out += '\n';
}

void append_groups(std::string& out, std::string_view kind,
                   const std::vector<GroupSummary>& groups) {
  if (groups.empty()) return;
  auto end = std::back_inserter(out);
  fmt::format_to(end, "\n{:<16} {:>8} {:>8} {:>8} {:>8} {:>9} {:>10} {:>10} {:>10}\n", kind,
                 "requests", "done", "refused", "failed", "tokens", "TTFT p50", "TTFT p99",
                 "TPOT p99");
  for (const GroupSummary& group : groups) {
    fmt::format_to(end, "{:<16} {:>8} {:>8} {:>8} {:>8} {:>9} {:>10.1f} {:>10.1f} {:>10.1f}\n",
                   group.name, group.requests, group.done, group.refused, group.failed,
                   group.output_tokens, group.ttft_ms.p50, group.ttft_ms.p99, group.tpot_ms.p99);
  }
}

void append_warnings(std::string& out, const Summary& summary) {
  auto end = std::back_inserter(out);
  size_t lines = 0;
  for (const auto& [error, count] : summary.errors) {
    if (lines++ == kMaxErrorLines) break;
    fmt::format_to(end, "failed: {} x {}\n", count, error);
  }
  if (!summary.counted_by_server)
    out += "note: the server sent no usage; pieces of text are counted\n";
  if (summary.send_lag_ms.p99 > kLateMs) {
    fmt::format_to(end,
                   "note: this client was itself late by {:.0f} ms (p99): read the rows \"from "
                   "due\"\n",
                   summary.send_lag_ms.p99);
  }
}

}  // namespace

std::string report_text(const ReportHead& head, const Summary& summary) {
  std::string out;
  auto end = std::back_inserter(out);
  const GroupSummary& all = summary.all;
  fmt::format_to(end, "{} ({}, {})\n{}; prompts {}, answers {} tokens; seed {}\n\n", head.model,
                 head.url, head.endpoint, head.arrivals, head.prompt_tokens, head.output_tokens,
                 head.seed);
  fmt::format_to(end, "requests   {} sent: {} done, {} refused, {} failed; {} at once at most\n",
                 all.requests, all.done, all.refused, all.failed, summary.most_in_flight);
  fmt::format_to(end, "rate       {:.2f}/s offered, {:.2f}/s done in {:.1f} s",
                 summary.offered_per_s, summary.requests_per_s, summary.duration_s);
  if (head.slo.any()) fmt::format_to(end, ", {:.2f}/s within the SLO", summary.goodput_per_s);
  fmt::format_to(end, "\ntokens     {:.1f}/s out, {:.1f}/s in all; {} in ({} cached), {} out\n\n",
                 summary.output_tokens_per_s, summary.total_tokens_per_s, all.prompt_tokens,
                 all.cached_tokens, all.output_tokens);
  fmt::format_to(end, "{:<20} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}\n", "ms", "mean", "p50", "p90",
                 "p95", "p99", "max");
  append_row(out, "first token (TTFT)", all.ttft_ms);
  append_row(out, "per token (TPOT)", all.tpot_ms);
  append_row(out, "between (ITL)", all.itl_ms);
  append_row(out, "whole answer (E2E)", all.e2e_ms);
  append_row(out, "TTFT from due", all.due_ttft_ms);
  append_row(out, "E2E from due", all.due_e2e_ms);
  append_row(out, "refusal", summary.refusals.latency_ms);
  append_row(out, "Retry-After", summary.refusals.retry_after_ms);
  if (all.ttft_over_quote.count > 0) {
    fmt::format_to(end, "TTFT over the quoted p95: {:.2f} at p50, {:.2f} at p95, {:.2f} at p99\n",
                   all.ttft_over_quote.p50, all.ttft_over_quote.p95, all.ttft_over_quote.p99);
  }
  append_refusals(out, summary.refusals);
  append_groups(out, "tenant", summary.tenants);
  append_groups(out, "class", summary.classes);
  append_warnings(out, summary);
  return out;
}

std::string report_json(const ReportHead& head, const Summary& summary) {
  json::object out = as_json(summary.all);
  json::object errors;
  for (const auto& [error, count] : summary.errors) errors[error] = count;
  out["url"] = head.url;
  out["model"] = head.model;
  out["endpoint"] = head.endpoint;
  out["arrivals"] = head.arrivals;
  out["prompt_tokens"] = head.prompt_tokens;
  out["output_tokens"] = head.output_tokens;
  out["seed"] = head.seed;
  out["slo"] = {{"ttft_ms", limit_json(head.slo.ttft_ms)},
                {"tpot_ms", limit_json(head.slo.tpot_ms)},
                {"e2el_ms", limit_json(head.slo.e2e_ms)}};
  out["duration"] = summary.duration_s;
  out["request_offered"] = summary.offered_per_s;
  out["request_throughput"] = summary.requests_per_s;
  out["request_goodput"] = summary.goodput_per_s;
  out["output_throughput"] = summary.output_tokens_per_s;
  out["total_token_throughput"] = summary.total_tokens_per_s;
  out["max_concurrent_requests"] = summary.most_in_flight;
  out["send_lag_ms"] = as_json(summary.send_lag_ms);
  out["tokens_counted_by_server"] = summary.counted_by_server;
  out["refusals"] = as_json(summary.refusals);
  out["errors"] = std::move(errors);
  out["tenants"] = as_json(summary.tenants);
  out["classes"] = as_json(summary.classes);
  return json::serialize(out);
}

}  // namespace puna::load
