// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cstdio>
#include <memory>

#include "cli/commands.h"
#include "load/chaos.h"
#include "load/prepare.h"
#include "load/server_process.h"

namespace puna::cli {
namespace {

constexpr TimeNs kStartTimeoutNs = 600 * kNsPerSecond;
constexpr TimeNs kStopTimeoutNs = 60 * kNsPerSecond;

Result<std::unique_ptr<load::ServerProcess>> start_server(const SelftestFlags& flags) {
  std::vector<std::string> serve_flags = {"--model", flags.model};
  if (!flags.api_key.empty()) serve_flags.insert(serve_flags.end(), {"--api-key", flags.api_key});
  serve_flags.insert(serve_flags.end(), flags.serve_flags.begin(), flags.serve_flags.end());
  return load::ServerProcess::start(serve_flags, kStartTimeoutNs);
}

void print_report(const load::ChaosReport& report) {
  fmt::print("\n{} of {} questions answered, {} pauses; ", report.answered, report.asked,
             report.pauses);
  size_t acts = 0;
  for (const auto& act : report.vandals.acts) acts += act.second;
  fmt::print("{} acts of vandals, {} of their requests refused\n", acts, report.vandals.refusals);
  for (const auto& [act, count] : report.vandals.acts) fmt::print("  {:>6} x {}\n", count, act);
  fmt::print("\n");
  for (const load::Promise& promise : report.promises) {
    fmt::print("{:<6} {:<18} {}\n", promise.kept ? "kept" : "BROKEN", promise.name, promise.detail);
  }
}

}  // namespace

Result<int> selftest(const SelftestFlags& flags) {
  std::unique_ptr<load::ServerProcess> own;
  std::string address = flags.url;
  if (!flags.model.empty()) {
    ASSIGN_OR_RETURN(own, start_server(flags));
    address = own->url();
  }
  load::Target target;
  auto url = load::parse_url(address);
  if (!url.ok()) return std::move(url).error().with_context("--url");
  target.url = *url;
  target.tenants = {{.name = "selftest", .key = flags.api_key}};
  target.ignore_eos = true;
  RETURN_IF_ERROR(load::prepare(target));

  const load::ChaosOptions options{.duration_s = flags.chaos_s,
                                   .rate = flags.rate,
                                   .pid = own ? own->pid() : flags.pid,
                                   .seed = flags.seed};
  ASSIGN_OR_RETURN(load::ChaosReport report,
                   load::run_chaos(target, options, [](std::string_view line) {
                     fmt::print(stderr, "{}\n", line);
                   }));
  if (own) {
    const int code = own->stop(kStopTimeoutNs);
    report.promises.push_back({"drains", code == 0, fmt::format("exit code {} on SIGTERM", code)});
  }
  print_report(report);
  fmt::print("\n{}\n", report.kept() ? "pass" : "fail");
  return report.kept() ? 0 : 1;
}

}  // namespace puna::cli
