// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cstdio>

#include "cli/commands.h"
#include "cli/signals.h"
#include "cli/terminal.h"
#include "load/load_run.h"
#include "load/prepare.h"
#include "load/report.h"

namespace puna::cli {
namespace {

constexpr double kDefaultDurationS = 30;

// `flag` goes in front of an error's message.
template <typename T>
Result<T> of_flag(std::string_view flag, Result<T> result) {
  if (result.ok()) return result;
  return std::move(result).error().with_context(flag);
}

Result<std::vector<load::Sender>> parse_senders(std::string_view flag,
                                                const std::vector<std::string>& texts) {
  std::vector<load::Sender> senders;
  for (const std::string& text : texts) {
    ASSIGN_OR_RETURN(load::Sender sender, of_flag(flag, load::Sender::parse(text)));
    senders.push_back(std::move(sender));
  }
  return senders;
}

Result<std::vector<load::Sender>> parse_tenants(const BenchServeFlags& flags) {
  ASSIGN_OR_RETURN(std::vector<load::Sender> tenants, parse_senders("--tenant", flags.tenants));
  if (!flags.tenants_file.empty()) {
    ASSIGN_OR_RETURN(const std::vector<load::Sender> more,
                     of_flag("--tenants", load::read_senders(flags.tenants_file)));
    tenants.insert(tenants.end(), more.begin(), more.end());
  }
  if (!tenants.empty()) return tenants;
  return std::vector<load::Sender>{{.name = "default", .key = flags.api_key}};
}

Result<load::Workload> parse_workload(const BenchServeFlags& flags) {
  load::Workload work;
  work.rate = flags.rate;
  if (!flags.bursts.empty()) {
    ASSIGN_OR_RETURN(work.bursts, of_flag("--bursts", load::Bursts::parse(flags.bursts)));
  }
  if (!flags.trace.empty()) {
    ASSIGN_OR_RETURN(work.trace, of_flag("--trace", load::read_trace(flags.trace)));
  }
  work.duration_s = flags.duration_s;
  work.requests = flags.requests;
  if (work.duration_s == 0 && work.requests == 0 && work.trace.empty()) {
    work.duration_s = kDefaultDurationS;
  }
  ASSIGN_OR_RETURN(work.prompt_tokens,
                   of_flag("--prompt-tokens", load::Distribution::parse(flags.prompt_tokens)));
  ASSIGN_OR_RETURN(work.output_tokens,
                   of_flag("--output-tokens", load::Distribution::parse(flags.output_tokens)));
  ASSIGN_OR_RETURN(work.tenants, parse_tenants(flags));
  ASSIGN_OR_RETURN(work.classes, parse_senders("--classes", flags.classes));
  work.turns = flags.turns;
  work.seed = flags.seed;
  return work;
}

Result<load::Target> parse_target(const BenchServeFlags& flags, const load::Workload& work) {
  load::Target target;
  ASSIGN_OR_RETURN(target.url, of_flag("--url", load::parse_url(flags.url)));
  target.model = flags.model;
  const bool chat = flags.endpoint == "chat";
  target.endpoint = chat ? load::Endpoint::kChat : load::Endpoint::kCompletions;
  if (chat && flags.prompt_id_limit > 0) {
    return Error(ErrorCode::kInvalidArgument, "--prompt-ids needs --endpoint completions");
  }
  target.prompt_id_limit = flags.prompt_id_limit;
  target.tenants = work.tenants;
  target.classes = work.classes;
  target.ignore_eos = !flags.stop_at_eos;
  target.shared_prefix_tokens = flags.shared_prefix;
  target.seed = flags.seed;
  return target;
}

load::ReportHead report_head(const BenchServeFlags& flags, const load::Target& target,
                             const load::Slo& slo) {
  load::ReportHead head;
  head.url = flags.url;
  head.model = target.model;
  head.endpoint = flags.endpoint;
  head.arrivals = !flags.trace.empty()    ? "trace " + flags.trace
                  : !flags.bursts.empty() ? "bursts " + flags.bursts
                                          : fmt::format("{} requests/s, Poisson", flags.rate);
  head.prompt_tokens = flags.prompt_tokens;
  head.output_tokens = flags.output_tokens;
  head.seed = flags.seed;
  head.slo = slo;
  return head;
}

// A line on a terminal; nothing in a pipe. Ctrl-C ends the run, not the report.
load::OnProgress progress_line(Signals& signals, size_t planned) {
  return [&signals, planned, tty = stderr_is_terminal()](const load::Progress& progress) {
    if (tty) {
      fmt::print(stderr, "\r{}/{} sent, {} in flight, {} done, {} refused, {} failed ",
                 progress.sent, planned, progress.in_flight, progress.done, progress.refused,
                 progress.failed);
    }
    return !signals.wait(0).has_value();
  };
}

Result<> write_file(const std::string& path, const std::string& text) {
  std::FILE* const file = path == "-" ? stdout : std::fopen(path.c_str(), "w");
  if (file == nullptr) return Error(ErrorCode::kIo, "{}: cannot be written", path);
  bool whole = std::fwrite(text.data(), 1, text.size(), file) == text.size();
  whole = (file == stdout ? std::fflush(file) : std::fclose(file)) == 0 && whole;
  if (!whole) return Error(ErrorCode::kIo, "{}: the disk is full or the file cannot grow", path);
  return Ok{};
}

}  // namespace

Result<int> bench_serve(const BenchServeFlags& flags) {
  ASSIGN_OR_RETURN(const load::Workload work, parse_workload(flags));
  ASSIGN_OR_RETURN(load::Target target, parse_target(flags, work));
  ASSIGN_OR_RETURN(const std::vector<load::PlannedRequest> plan, load::plan_requests(work));
  Signals signals;
  RETURN_IF_ERROR(load::prepare(target));
  load::LoadOptions options;
  options.honour_retry_after = flags.honour_retry_after;
  options.timeout_ns = static_cast<TimeNs>(flags.timeout_s * kNsPerSecond);
  ASSIGN_OR_RETURN(const load::LoadResult result,
                   load::run_load(target, options, plan, progress_line(signals, plan.size())));
  if (stderr_is_terminal()) fmt::print(stderr, "\n");

  const load::Slo slo{flags.slo_ttft_ms, flags.slo_tpot_ms, flags.slo_e2e_ms};
  const load::Summary summary = load::summarise(result, target, plan.back().at_ns, slo);
  const load::ReportHead head = report_head(flags, target, slo);
  if (flags.json != "-") fmt::print("{}", load::report_text(head, summary));
  if (!flags.json.empty()) {
    RETURN_IF_ERROR(
        of_flag("--json", write_file(flags.json, load::report_json(head, summary) + "\n")));
  }
  if (!flags.html.empty()) {
    const std::string page = load::report_html(head, summary, result);
    RETURN_IF_ERROR(of_flag("--html", write_file(flags.html, page)));
  }
  return summary.all.done > 0 || summary.all.refused > 0 ? 0 : 1;
}

}  // namespace puna::cli
