// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

#include "cli/commands.h"
#include "cli/signals.h"
#include "cli/terminal.h"
#include "load/capacity_search.h"
#include "load/load_run.h"
#include "load/prepare.h"
#include "load/report.h"

namespace puna::cli {
namespace {

constexpr double kDefaultDurationS = 30;
constexpr double kFewestOfASweep = 10;  // requests of a run, to speak of shares

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
load::OnProgress progress_line(Signals& signals, bool& stopped, size_t planned) {
  return [&signals, &stopped, planned, tty = stderr_is_terminal()](const load::Progress& progress) {
    if (tty) {
      fmt::print(stderr, "\r{}/{} sent, {} in flight, {} done, {} refused, {} failed ",
                 progress.sent, planned, progress.in_flight, progress.done, progress.refused,
                 progress.failed);
    }
    stopped = stopped || signals.wait(0).has_value();
    return !stopped;
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

// A run at one rate, and what it gave.
struct Run {
  load::ReportHead head;
  load::Summary summary;
  load::LoadResult result;
  bool stopped = false;  // by the user, before its end
};

Result<Run> run_once(const BenchServeFlags& flags, const load::Workload& work,
                     const load::Target& target, Signals& signals) {
  ASSIGN_OR_RETURN(const std::vector<load::PlannedRequest> plan, load::plan_requests(work));
  load::LoadOptions options;
  options.honour_retry_after = flags.honour_retry_after;
  options.timeout_ns = static_cast<TimeNs>(flags.timeout_s * kNsPerSecond);
  Run run;
  ASSIGN_OR_RETURN(run.result, load::run_load(target, options, plan,
                                              progress_line(signals, run.stopped, plan.size())));
  if (stderr_is_terminal()) fmt::print(stderr, "\n");
  const load::Slo slo{flags.slo_ttft_ms, flags.slo_tpot_ms, flags.slo_e2e_ms};
  run.head = report_head(flags, target, slo);
  run.summary = load::summarise(run.result, target, plan.back().at_ns, slo);
  return run;
}

double good_share(const load::GroupSummary& all) {
  return static_cast<double>(all.good) / static_cast<double>(std::max<size_t>(all.requests, 1));
}

std::string sweep_json(const load::CapacitySearch& search, const std::string& runs) {
  const std::string capacity =
      search.capacity() > 0 ? fmt::format("{}", search.capacity()) : std::string("null");
  return fmt::format(R"({{"capacity_requests_per_s": {}, "good_share": {}, "runs": [{}]}})",
                     capacity, load::CapacitySearch::kGoodShare, runs);
}

bool enough_requests(const load::Workload& work, double rate) {
  return work.requests > 0 || rate * work.duration_s >= kFewestOfASweep;
}

Result<> check_sweep(const BenchServeFlags& flags, const load::Workload& work) {
  if (!flags.slo_ttft_ms && !flags.slo_tpot_ms && !flags.slo_e2e_ms) {
    return Error(
        ErrorCode::kInvalidArgument,
        "--sweep needs --slo-ttft-ms, --slo-tpot-ms or --slo-e2e-ms: what a good answer is");
  }
  if (enough_requests(work, flags.rate)) return Ok{};
  return Error(ErrorCode::kInvalidArgument,
               "--sweep needs {} requests a run: raise --duration or --rate, where it begins",
               kFewestOfASweep);
}

// The highest rate at which answers keep the SLO: a row for each run.
Result<int> sweep(BenchServeFlags flags, load::Workload work, const load::Target& target,
                  Signals& signals) {
  load::CapacitySearch search(flags.rate);
  const bool table = flags.json != "-";
  if (table) {
    fmt::print("{:>10} {:>10} {:>8} {:>9} {:>12} {:>12}\n", "offered/s", "done/s", "good",
               "refused", "TTFT p99 ms", "TPOT p99 ms");
  }
  std::string runs;
  while (!search.ended() && enough_requests(work, search.rate())) {
    flags.rate = work.rate = search.rate();
    ASSIGN_OR_RETURN(const Run run, run_once(flags, work, target, signals));
    if (run.stopped) break;
    const load::GroupSummary& all = run.summary.all;
    if (table) {
      fmt::print("{:>10.3g} {:>10.3g} {:>7.1f}% {:>9} {:>12.0f} {:>12.1f}\n", search.rate(),
                 run.summary.requests_per_s, 100 * good_share(all), all.refused,
                 all.due_ttft_ms.p99, all.tpot_ms.p99);
      std::fflush(stdout);
    }
    search.note(good_share(all));
    runs += (runs.empty() ? "" : ", ") + load::report_json(run.head, run.summary);
  }
  if (table) {
    fmt::print("{}\n", search.capacity() > 0
                           ? fmt::format("capacity: {:.3g} requests/s", search.capacity())
                           : "capacity: none: no run kept the SLO");
  }
  if (!flags.json.empty()) {
    RETURN_IF_ERROR(of_flag("--json", write_file(flags.json, sweep_json(search, runs) + "\n")));
  }
  return search.capacity() > 0 ? 0 : 1;
}

}  // namespace

Result<int> bench_serve(const BenchServeFlags& flags) {
  ASSIGN_OR_RETURN(const load::Workload work, parse_workload(flags));
  ASSIGN_OR_RETURN(load::Target target, parse_target(flags, work));
  if (flags.sweep) RETURN_IF_ERROR(check_sweep(flags, work));
  Signals signals;
  RETURN_IF_ERROR(load::prepare(target));
  if (flags.sweep) return sweep(flags, work, target, signals);
  ASSIGN_OR_RETURN(const Run run, run_once(flags, work, target, signals));
  if (flags.json != "-") fmt::print("{}", load::report_text(run.head, run.summary));
  if (!flags.json.empty()) {
    const std::string text = load::report_json(run.head, run.summary) + "\n";
    RETURN_IF_ERROR(of_flag("--json", write_file(flags.json, text)));
  }
  if (!flags.html.empty()) {
    const std::string page = load::report_html(run.head, run.summary, run.result);
    RETURN_IF_ERROR(of_flag("--html", write_file(flags.html, page)));
  }
  return run.summary.all.done > 0 || run.summary.all.refused > 0 ? 0 : 1;
}

}  // namespace puna::cli
