// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <regex.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cstdio>
#include <optional>

#include "cli/bench_machine.h"
#include "cli/commands.h"
#include "cli/kernel_bench.h"
#include "kernels/cpu/isa.h"
#include "kernels/random_weights.h"

namespace puna::cli {
namespace {

namespace json = boost::json;
using kernels::ActivationType;
using kernels::KvType;

// A POSIX extended regular expression.
class Pattern {
 public:
  static Result<std::unique_ptr<Pattern>> compile(const std::string& text) {
    auto pattern = std::make_unique<Pattern>();
    const int code = ::regcomp(&pattern->regex_, text.c_str(), REG_EXTENDED | REG_NOSUB);
    if (code != 0) {
      std::string reason(128, '\0');
      reason.resize(::regerror(code, &pattern->regex_, reason.data(), reason.size()) - 1);
      return Error(ErrorCode::kInvalidArgument, "--filter {}: {}", text, reason);
    }
    pattern->compiled_ = true;
    return pattern;
  }
  Pattern() = default;
  Pattern(const Pattern&) = delete;
  Pattern& operator=(const Pattern&) = delete;
  ~Pattern() {
    if (compiled_) ::regfree(&regex_);
  }
  bool matches(const std::string& text) const {
    return ::regexec(&regex_, text.c_str(), 0, nullptr, 0) == 0;
  }

 private:
  regex_t regex_{};
  bool compiled_ = false;
};

// A time beside the limits that were measured just before and after it.
struct KernelResult {
  KernelTime time;
  double gb_per_s = 0;
  double gop_per_s = 0;
  double fraction_of_read = 0;
  double fraction_of_peak = 0;
  std::string_view bound;  // "read", "int8", "bf16", "f32": what allows least
  double fraction_of_bound = 0;
};

KernelResult beside(const KernelTime& time, const kernels::MachineRoof& roof) {
  double peak = roof.f32_gflop_per_s;
  std::string_view unit = "f32";
  if (time.arithmetic == ActivationType::kInt8) {
    peak = roof.int8_gop_per_s;
    unit = "int8";
  } else if (time.arithmetic == ActivationType::kBF16 && roof.bf16_gflop_per_s > 0) {
    peak = roof.bf16_gflop_per_s;
    unit = "bf16";
  }
  KernelResult result;
  const auto time_ns = static_cast<double>(time.time_ns);
  result.time = time;
  result.gb_per_s = time.bytes / time_ns;
  result.gop_per_s = time.operations / time_ns;
  result.fraction_of_read = result.gb_per_s / roof.read_gb_per_s;
  result.fraction_of_peak = result.gop_per_s / peak;
  const bool read_bound = result.fraction_of_read >= result.fraction_of_peak;
  result.bound = read_bound ? "read" : unit;
  result.fraction_of_bound = std::max(result.fraction_of_read, result.fraction_of_peak);
  return result;
}

json::object result_json(const KernelResult& result) {
  return {{"op", result.time.op},
          {"type", result.time.type},
          {"rows", result.time.rows},
          {"time_us", static_cast<double>(result.time.time_ns) * 1e-3},
          {"gb_per_s", result.gb_per_s},
          {"gop_per_s", result.gop_per_s},
          {"fraction_of_read_bandwidth", result.fraction_of_read},
          {"fraction_of_peak", result.fraction_of_peak},
          {"bound", result.bound},
          {"fraction_of_bound", result.fraction_of_bound}};
}

void print_row(const KernelResult& result) {
  fmt::print("{:<14} {:<9} {:>5} {:>10.1f} {:>7.1f} {:>7.1f} {:>6.0f}% of {}\n", result.time.op,
             result.time.type, result.time.rows, static_cast<double>(result.time.time_ns) * 1e-3,
             result.gb_per_s, result.gop_per_s, 100 * result.fraction_of_bound, result.bound);
}

// Runs groups of cases, each between two measurements of the machine.
class KernelReport {
 public:
  KernelReport(const MachineFacts& machine, kernels::RoofMeter& meter, bool print)
      : machine_(machine), meter_(meter), print_(print), before_(meter.measure()) {
    machine_.roof = before_;
  }

  // `group` returns Result<std::vector<KernelTime>>.
  template <typename Group>
  Result<> add(const Group& group) {
    ASSIGN_OR_RETURN(const std::vector<KernelTime> times, group());
    if (times.empty()) return Ok{};
    const kernels::MachineRoof after = meter_.measure();
    if (print_ && results_.empty()) print_head();
    for (const KernelTime& time : times) {
      results_.push_back(beside(time, higher(before_, after)));
      if (print_) print_row(results_.back());
    }
    machine_.roof = higher(machine_.roof, after);
    before_ = after;
    return Ok{};
  }

  bool empty() const { return results_.empty(); }
  json::object as_json() const {
    json::array results;
    for (const KernelResult& result : results_) results.push_back(result_json(result));
    return {{"machine", machine_json(machine_)}, {"results", std::move(results)}};
  }

 private:
  void print_head() const {
    fmt::print("{}{:<14} {:<9} {:>5} {:>10} {:>7} {:>7}   limit\n", machine_text(machine_), "op",
               "type", "rows", "us", "GB/s", "GOP/s");
  }

  MachineFacts machine_;
  kernels::RoofMeter& meter_;
  const bool print_;
  kernels::MachineRoof before_;
  std::vector<KernelResult> results_;
};

Result<> run_all(const KernelBench& bench, const std::optional<KvType>& only,
                 KernelReport& report) {
  for (const formats::TensorType type : kernels::kAllTypes) {
    RETURN_IF_ERROR(report.add([&] { return bench.matrices(type); }));
  }
  for (const KvType type : {KvType::kF32, KvType::kBF16, KvType::kInt8}) {
    if (only && *only != type) continue;
    for (const int32_t head_dim : {64, 128}) {
      RETURN_IF_ERROR(report.add([&] { return bench.attention(type, head_dim); }));
    }
  }
  for (const ActivationType type :
       {ActivationType::kF32, ActivationType::kBF16, ActivationType::kInt8}) {
    RETURN_IF_ERROR(report.add([&] { return bench.norms(type); }));
  }
  return Ok{};
}

}  // namespace

Result<int> bench_kernels(const BenchKernelsFlags& flags) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Pattern> pattern, Pattern::compile(flags.filter));
  ASSIGN_OR_RETURN(const MachineFacts machine, machine_facts(flags.model.threads, flags.model.isa));
  ASSIGN_OR_RETURN(const auto pool, kernels::ThreadPool::create(machine.threads));
  ASSIGN_OR_RETURN(const auto ops,
                   kernels::make_cpu_ops(flags.model.isa, {.activations = flags.model.activations,
                                                           .pool = pool.get()}));
  ASSIGN_OR_RETURN(const auto meter, kernels::RoofMeter::create(machine.isa, machine.threads));
  const KernelBench bench(*ops, *pool,
                          [&](const std::string& name) { return pattern->matches(name); });
  KernelReport report(machine, *meter, !flags.json);
  RETURN_IF_ERROR(run_all(bench, flags.model.kv_dtype, report));
  if (report.empty()) {
    return Error(ErrorCode::kInvalidArgument,
                 "--filter {} matches none of OP/TYPE/ROWS, as in matmul/Q4_K/8", flags.filter);
  }
  if (flags.json) fmt::print("{}\n", json::serialize(report.as_json()));
  return 0;
}

}  // namespace puna::cli
