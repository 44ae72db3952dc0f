// SPDX-License-Identifier: Apache-2.0
// puna: exit code 0 for done, 1 for a failure while running, 2 with one line on stderr for bad
// input.
#include <fmt/core.h>
#include <malloc.h>

#include <algorithm>
#include <cstdio>
#include <string_view>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "cli/commands.h"

namespace {

using puna::Error;
using puna::Result;

// What is freed goes back to the system instead of growing the heap's free lists: two heaps for all
// threads, and large pieces mapped on their own however often they come.
void limit_heap_slack() {
  constexpr int kArenas = 2;
  constexpr int kMappedFrom = 256 << 10;
  constexpr int kKeptFree = 256 << 10;
  ::mallopt(M_ARENA_MAX, kArenas);
  ::mallopt(M_MMAP_THRESHOLD, kMappedFrom);
  ::mallopt(M_TRIM_THRESHOLD, kKeptFree);
}

int report(const Error& error) {
  std::string line = error.message();
  std::replace(line.begin(), line.end(), '\n', ' ');
  fmt::print(stderr, "puna: {}\n", line);
  return error.code() == puna::ErrorCode::kInternal ? 1 : 2;
}

struct RunCommand {
  puna::TimeNs started_ns;
  Result<int> operator()(const puna::cli::Text& text) const {
    fmt::print("{}", text.text);
    return 0;
  }
  Result<int> operator()(const puna::cli::ServeFlags& flags) const {
    return puna::cli::serve(flags, started_ns);
  }
  Result<int> operator()(const puna::cli::RunFlags& flags) const { return puna::cli::run(flags); }
  Result<int> operator()(const puna::cli::PlanFlags& flags) const {
    return puna::cli::plan_command(flags);
  }
  Result<int> operator()(const puna::cli::InspectFlags& flags) const {
    return puna::cli::inspect(flags);
  }
  Result<int> operator()(const puna::cli::QuantizeFlags& flags) const {
    return puna::cli::quantize(flags);
  }
  Result<int> operator()(const puna::cli::BenchEngineFlags& flags) const {
    return puna::cli::bench_engine(flags);
  }
  Result<int> operator()(const puna::cli::BenchKernelsFlags& flags) const {
    return puna::cli::bench_kernels(flags);
  }
  Result<int> operator()(const puna::cli::BenchServeFlags& flags) const {
    return puna::cli::bench_serve(flags);
  }
  Result<int> operator()(const puna::cli::SelftestFlags& flags) const {
    return puna::cli::selftest(flags);
  }
  Result<int> operator()(const puna::cli::RouteFlags& flags) const {
    return puna::cli::route_explain(flags);
  }
  Result<int> operator()(const puna::cli::CheckFlags& flags) const {
    return puna::cli::check_command(flags);
  }
  Result<int> operator()(const puna::cli::DivergenceFlags& flags) const {
    return puna::cli::divergence(flags);
  }
};

// Called by the name quantize_check, the program is `puna check`.
std::vector<const char*> arguments_of(int argc, char** argv) {
  std::vector<const char*> arguments(argv, argv + argc);
  const std::string_view name = argc > 0 ? argv[0] : "";
  const std::string_view last = name.substr(name.rfind('/') + 1);
  const bool version = argc > 1 && std::string_view(argv[1]) == "--version";
  if (last == "quantize_check" && !version) {
    arguments.insert(arguments.begin() + 1, "check");
    if (argc == 1) arguments.push_back("--help");
  }
  return arguments;
}

}  // namespace

int main(int argc, char** argv) {
  const puna::TimeNs started_ns = puna::SteadyClock().now_ns();
  limit_heap_slack();
  const std::vector<const char*> arguments = arguments_of(argc, argv);
  const auto command =
      puna::cli::parse_command(static_cast<int>(arguments.size()), arguments.data());
  if (!command.ok()) return report(command.error());
  const Result<int> exit_code = std::visit(RunCommand{started_ns}, *command);
  return exit_code.ok() ? *exit_code : report(exit_code.error());
}
