// SPDX-License-Identifier: Apache-2.0
// The report as one page that needs nothing else: tiles, plots as inline SVG, tables.
#include <algorithm>
#include <iterator>

#include "load/report.h"
#include "load/svg_plot.h"

namespace puna::load {
namespace {

constexpr size_t kCdfPoints = 200;
constexpr double kThroughputBins = 60;

constexpr std::string_view kStyle = R"(<style>
:root{--ink:#1d2733;--soft:#5d6b7a;--line:#e3e8ee;--card:#fff;--page:#f5f7fa;
--c0:#2463c9;--c1:#d9622b;--c2:#1f9470;--c3:#8a4fc2;--c4:#c2344d;--c5:#7a6a1c}
@media(prefers-color-scheme:dark){:root{--ink:#e6ebf1;--soft:#9aa8b7;--line:#2c3743;--card:#1a222b;
--page:#11171e;--c0:#6ea2f5;--c1:#f0935f;--c2:#56c9a2;--c3:#bd8df0;--c4:#f07488;--c5:#cdb955}}
body{margin:0 auto;padding:28px 20px 60px;max-width:1180px;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,sans-serif}
h1{font-size:22px;margin:0}h2{font-size:16px;margin:30px 0 10px}
p{color:var(--soft);margin:4px 0 18px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(120px,1fr));gap:12px}
.tiles div,.plots svg,table{background:var(--card);border:1px solid var(--line);border-radius:8px}
.tiles div{padding:10px 14px}
.tiles b{display:block;font-size:19px;font-variant-numeric:tabular-nums}
.tiles span{color:var(--soft);font-size:13px}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(460px,1fr));gap:14px;
margin-top:14px}
svg{width:100%;height:auto}svg text{fill:var(--soft);font-size:11.5px}
svg .title{fill:var(--ink);font-size:14px;font-weight:600}
.grid{stroke:var(--line);fill:none}.line{fill:none;stroke-width:1.8;stroke-linejoin:round}
.dots{fill:none;stroke-width:4;stroke-linecap:round;opacity:.5}
.key{fill:none;stroke-width:4;stroke-linecap:round}
.s0{stroke:var(--c0)}.s1{stroke:var(--c1)}.s2{stroke:var(--c2)}
.s3{stroke:var(--c3)}.s4{stroke:var(--c4)}.s5{stroke:var(--c5)}
table{border-collapse:separate;border-spacing:0;width:100%;font-variant-numeric:tabular-nums}
td,th{padding:6px 12px;text-align:right;border-top:1px solid var(--line)}
tr:first-child th{border-top:0;color:var(--soft);font-weight:500}
td:first-child,th:first-child{text-align:left}
</style>)";

Series cdf(std::string name, std::vector<double> values) {
  Series series{.name = std::move(name), .points = {}, .dots = false};
  if (values.empty()) return series;
  std::sort(values.begin(), values.end());
  for (size_t i = 0; i <= kCdfPoints; ++i) {
    const double part = static_cast<double>(i) / kCdfPoints;
    series.points.emplace_back(percentile_of_sorted(values, part), part);
  }
  return series;
}

Plot latency_plot(const LoadResult& result) {
  Series ttft{.name = "first token", .points = {}, .dots = true};
  Series whole{.name = "whole answer", .points = {}, .dots = true};
  Series refused{.name = "refusal", .points = {}, .dots = true};
  for (const Record& record : result.records) {
    for (const Refusal& refusal : record.refusals) {
      refused.points.emplace_back(to_seconds(refusal.sent_ns), to_seconds(refusal.took_ns));
    }
    if (!record.done()) continue;
    ttft.points.emplace_back(to_seconds(record.sent_ns),
                             to_seconds(record.first_ns - record.sent_ns));
    whole.points.emplace_back(to_seconds(record.sent_ns),
                              to_seconds(record.end_ns - record.sent_ns));
  }
  Plot plot{"Latency over time", "sent at, s", "s", false, {ttft, whole}};
  if (!refused.points.empty()) plot.series.push_back(std::move(refused));
  return plot;
}

Plot cdf_plot(const LoadResult& result) {
  std::vector<double> ttft, itl, whole;
  for (const Record& record : result.records) {
    if (!record.done()) continue;
    ttft.push_back(ms_between(record.sent_ns, record.first_ns));
    whole.push_back(ms_between(record.sent_ns, record.end_ns));
    itl.insert(itl.end(), record.gaps_ms.begin(), record.gaps_ms.end());
  }
  return {"Share of requests within",
          "ms, logarithmic",
          "share",
          true,
          {cdf("first token", ttft), cdf("whole answer", whole), cdf("between tokens", itl)}};
}

Plot queue_plot(const LoadResult& result) {
  Series running{.name = "running", .points = {}, .dots = false};
  Series waiting{.name = "waiting", .points = {}, .dots = false};
  for (const MetricSample& sample : result.samples) {
    running.points.emplace_back(to_seconds(sample.at_ns), sample.running);
    waiting.points.emplace_back(to_seconds(sample.at_ns), sample.waiting);
  }
  return {"Requests in the server (/metrics)", "s", "requests", false, {running, waiting}};
}

Plot kv_plot(const LoadResult& result) {
  Series used{.name = "used", .points = {}, .dots = false};
  for (const MetricSample& sample : result.samples) {
    used.points.emplace_back(to_seconds(sample.at_ns), 100 * sample.kv_usage);
  }
  return {"KV cache in use (/metrics)", "s", "%", false, {used}};
}

// Tokens are spread evenly between the first and the last text of an answer.
Plot throughput_plot(const LoadResult& result) {
  const double bin_s = std::max(to_seconds(result.took_ns) / kThroughputBins, 1e-3);
  std::vector<double> bins(static_cast<size_t>(kThroughputBins) + 2);
  for (const Record& record : result.records) {
    if (!record.done()) continue;
    const double first = to_seconds(record.first_ns);
    const double step =
        to_seconds(record.last_ns - record.first_ns) / std::max(1, record.output_tokens);
    for (int32_t i = 0; i < record.output_tokens; ++i) {
      const auto bin = static_cast<size_t>((first + step * i) / bin_s);
      bins[std::min(bin, bins.size() - 1)] += 1;
    }
  }
  Series tokens{.name = "output tokens", .points = {}, .dots = false};
  for (size_t i = 0; i + 1 < bins.size(); ++i) {
    tokens.points.emplace_back((static_cast<double>(i) + 0.5) * bin_s, bins[i] / bin_s);
  }
  return {"Output tokens a second", "s", "tokens/s", false, {tokens}};
}

void append_tile(std::string& out, std::string_view value, std::string_view name) {
  fmt::format_to(std::back_inserter(out), "<div><b>{}</b><span>{}</span></div>\n", value, name);
}

void append_tiles(std::string& out, const ReportHead& head, const Summary& summary) {
  const GroupSummary& all = summary.all;
  out += "<div class=\"tiles\">\n";
  append_tile(out, fmt::format("{} / {}", all.done, all.requests), "answered of sent");
  append_tile(out, std::to_string(all.refused), "refused in the end");
  append_tile(out, std::to_string(all.failed), "failed");
  append_tile(out, fmt::format("{:.2f}/s", summary.requests_per_s), "answers");
  if (head.slo.any()) {
    append_tile(out, fmt::format("{:.2f}/s", summary.goodput_per_s), "answers within the SLO");
  }
  append_tile(out, fmt::format("{:.0f}/s", summary.output_tokens_per_s), "output tokens");
  append_tile(out, fmt::format("{:.0f} ms", all.ttft_ms.p99), "first token, p99");
  append_tile(out, fmt::format("{:.0f} ms", all.tpot_ms.p99), "per token, p99");
  out += "</div>\n";
}

void append_table_row(std::string& out, std::string_view name, const Percentiles& of) {
  if (of.count == 0) return;
  fmt::format_to(std::back_inserter(out), "<tr><td>{}</td><td>{}</td>", html_escape(name),
                 of.count);
  for (const double value : {of.mean, of.p50, of.p90, of.p95, of.p99, of.max}) {
    fmt::format_to(std::back_inserter(out), "<td>{:.1f}</td>", value);
  }
  out += "</tr>\n";
}

void append_latencies(std::string& out, const Summary& summary) {
  const GroupSummary& all = summary.all;
  out +=
      "<h2>Latencies, ms</h2>\n<table><tr><th></th><th>count</th><th>mean</th><th>p50</th>"
      "<th>p90</th><th>p95</th><th>p99</th><th>max</th></tr>\n";
  append_table_row(out, "first token (TTFT)", all.ttft_ms);
  append_table_row(out, "per token after the first (TPOT)", all.tpot_ms);
  append_table_row(out, "between pieces of text (ITL)", all.itl_ms);
  append_table_row(out, "whole answer", all.e2e_ms);
  append_table_row(out, "first token, from due", all.due_ttft_ms);
  append_table_row(out, "whole answer, from due", all.due_e2e_ms);
  append_table_row(out, "refusal", summary.refusals.latency_ms);
  append_table_row(out, "Retry-After", summary.refusals.retry_after_ms);
  append_table_row(out, "this client's own delay", summary.send_lag_ms);
  out += "</table>\n";
}

void append_group_table(std::string& out, std::string_view title,
                        const std::vector<GroupSummary>& groups) {
  if (groups.empty()) return;
  fmt::format_to(std::back_inserter(out),
                 "<h2>{}</h2>\n<table><tr><th></th><th>requests</th><th>done</th><th>refused</th>"
                 "<th>failed</th><th>output tokens</th><th>TTFT p50, ms</th><th>TTFT p99</th>"
                 "<th>TPOT p99</th></tr>\n",
                 title);
  for (const GroupSummary& group : groups) {
    fmt::format_to(std::back_inserter(out),
                   "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>"
                   "<td>{:.1f}</td><td>{:.1f}</td><td>{:.1f}</td></tr>\n",
                   html_escape(group.name), group.requests, group.done, group.refused, group.failed,
                   group.output_tokens, group.ttft_ms.p50, group.ttft_ms.p99, group.tpot_ms.p99);
  }
  out += "</table>\n";
}

}  // namespace

std::string report_html(const ReportHead& head, const Summary& summary, const LoadResult& result) {
  std::string out = "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\n";
  out += "<meta name=\"viewport\" content=\"width=device-width\">\n<title>Load report</title>\n";
  out += kStyle;
  fmt::format_to(std::back_inserter(out),
                 "\n<h1>{}</h1>\n<p>{} ({}) · {} · prompts {}, answers {} tokens · seed {} · "
                 "{:.1f} s</p>\n",
                 html_escape(head.model), html_escape(head.url), head.endpoint,
                 html_escape(head.arrivals), html_escape(head.prompt_tokens),
                 html_escape(head.output_tokens), head.seed, summary.duration_s);
  append_tiles(out, head, summary);
  out += "<div class=\"plots\">\n";
  out += svg_plot(latency_plot(result)) + svg_plot(cdf_plot(result));
  if (!result.samples.empty()) out += svg_plot(queue_plot(result)) + svg_plot(kv_plot(result));
  out += svg_plot(throughput_plot(result)) + "</div>\n";
  append_latencies(out, summary);
  append_group_table(out, "Tenants", summary.tenants);
  append_group_table(out, "Classes", summary.classes);
  if (!summary.errors.empty()) {
    out += "<h2>Failures</h2>\n<table>";
    for (const auto& [error, count] : summary.errors) {
      fmt::format_to(std::back_inserter(out), "<tr><td>{}</td><td>{}</td></tr>\n",
                     html_escape(error), count);
    }
    out += "</table>\n";
  }
  return out + "</html>\n";
}

}  // namespace puna::load
