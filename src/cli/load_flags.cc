// SPDX-License-Identifier: Apache-2.0
#include "cli/load_flags.h"

#include "cli/flag_kinds.h"

namespace puna::cli {
namespace {

// "90", "90s", "10m", "2h" into seconds, as text.
std::string duration_text(const std::string& text) {
  constexpr double kMinute = 60;
  double unit = 1;
  if (text.ends_with('m')) unit = kMinute;
  if (text.ends_with('h')) unit = kMinute * kMinute;
  const bool named = unit > 1 || text.ends_with('s');
  double number = 0;
  if (!CLI::detail::lexical_cast(text.substr(0, text.size() - (named ? 1 : 0)), number))
    return text;
  return fmt::format("{}", number * unit);
}

}  // namespace

void add_bench_serve_flags(CLI::App& app, BenchServeFlags& flags) {
  constexpr double kMaxMs = 1e8;
  app.add_option("--url", flags.url);
  app.add_option("--api-key", flags.api_key);
  app.add_option("--model", flags.model);
  app.add_option("--endpoint", flags.endpoint)->check(CLI::IsMember({"chat", "completions"}));
  CLI::Option* rate = add_number<double>(app, "--rate", flags.rate, 1e-3, 1e6);
  CLI::Option* bursts = app.add_option("--bursts", flags.bursts)->excludes(rate);
  CLI::Option* trace = app.add_option("--trace", flags.trace)->excludes(rate)->excludes(bursts);
  add_number<double>(app, "--duration", flags.duration_s, 1e-3, 1e7);
  add_number<int64_t>(app, "--requests", flags.requests, 1, 5'000'000);
  app.add_option("--prompt-tokens", flags.prompt_tokens);
  app.add_option("--output-tokens", flags.output_tokens);
  add_number<int32_t>(app, "--prompt-ids", flags.prompt_id_limit, 16, 1 << 24);
  app.add_option("--tenant", flags.tenants)->allow_extra_args(false);
  app.add_option("--tenants", flags.tenants_file);
  app.add_option("--classes", flags.classes)->delimiter(',');
  add_number<int32_t>(app, "--multi-turn", flags.turns, 1, 64);
  add_number<int32_t>(app, "--shared-prefix", flags.shared_prefix, 0, 1 << 20);
  app.add_option("--slo-ttft-ms", flags.slo_ttft_ms)->check(in_range(0.0, kMaxMs));
  app.add_option("--slo-tpot-ms", flags.slo_tpot_ms)->check(in_range(0.0, kMaxMs));
  app.add_option("--slo-e2e-ms", flags.slo_e2e_ms)->check(in_range(0.0, kMaxMs));
  app.add_flag("--honour-retry-after", flags.honour_retry_after);
  app.add_flag("--stop-at-eos", flags.stop_at_eos);
  add_number<double>(app, "--timeout", flags.timeout_s, 1e-3, 1e6);
  add_number<uint64_t>(app, "--seed", flags.seed, 0, UINT64_MAX);
  app.add_option("--json", flags.json);
  CLI::Option* html = app.add_option("--html", flags.html);
  app.add_flag("--sweep", flags.sweep)->excludes(bursts)->excludes(trace)->excludes(html);
}

void add_selftest_flags(CLI::App& app, SelftestFlags& flags) {
  add_number<double>(app, "--chaos", flags.chaos_s, 1, 1e6)->transform(duration_text)->required();
  CLI::Option* url = app.add_option("--url", flags.url);
  CLI::Option* model = app.add_option("--model", flags.model)->excludes(url);
  app.add_option("serve_flags", flags.serve_flags)->needs(model);
  app.add_option("--api-key", flags.api_key);
  add_number<int32_t>(app, "--pid", flags.pid, 2, INT32_MAX)->needs(url);
  add_number<double>(app, "--rate", flags.rate, 1e-3, 1e4);
  add_number<uint64_t>(app, "--seed", flags.seed, 0, UINT64_MAX);
}

}  // namespace puna::cli
