// SPDX-License-Identifier: Apache-2.0
#include "cli/bench_machine.h"

#include <fmt/format.h>

#include <fstream>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/thread_pool.h"

namespace puna::cli {
namespace {

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

}  // namespace

Result<MachineFacts> machine_facts(int32_t threads, const std::string& isa) {
  ASSIGN_OR_RETURN(const std::unique_ptr<kernels::Ops> ops, kernels::make_cpu_ops(isa));
  MachineFacts facts;
  facts.cpu = cpu_name();
  facts.cores = kernels::usable_cpus();
  facts.threads = threads > 0 ? threads : facts.cores;
  facts.isa = std::string(ops->name());
  return facts;
}

boost::json::object machine_json(const MachineFacts& machine) {
  return {{"cpu", machine.cpu},
          {"cores", machine.cores},
          {"threads", machine.threads},
          {"isa", machine.isa},
          {"read_gb_per_s", machine.roof.read_gb_per_s},
          {"read_gb_per_s_one_thread", machine.roof.read_gb_per_s_one_thread},
          {"int8_gop_per_s", machine.roof.int8_gop_per_s},
          {"bf16_gflop_per_s", machine.roof.bf16_gflop_per_s},
          {"f32_gflop_per_s", machine.roof.f32_gflop_per_s}};
}

std::string machine_text(const MachineFacts& machine) {
  const kernels::MachineRoof& roof = machine.roof;
  const std::string bf16 =
      roof.bf16_gflop_per_s > 0 ? fmt::format("bf16 {:.0f} GFLOP/s, ", roof.bf16_gflop_per_s) : "";
  return fmt::format(
      "{}, {} cores; {} threads, {}\n"
      "limits: read {:.1f} GB/s ({:.1f} one thread), int8 {:.0f} GOP/s, {}f32 {:.0f} GFLOP/s\n",
      machine.cpu, machine.cores, machine.threads, machine.isa, roof.read_gb_per_s,
      roof.read_gb_per_s_one_thread, roof.int8_gop_per_s, bf16, roof.f32_gflop_per_s);
}

}  // namespace puna::cli
