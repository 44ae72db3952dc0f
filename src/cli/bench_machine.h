// SPDX-License-Identifier: Apache-2.0
// The machine that a benchmark ran on: its name and what it can do at most.
#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <string>

#include "kernels/cpu/machine_roof.h"

namespace puna::cli {

struct MachineFacts {
  std::string cpu;    // "AMD EPYC", as the CPU calls itself
  int32_t cores = 0;  // CPUs that this process may use
  int32_t threads = 0;
  std::string isa;
  kernels::MachineRoof roof;
};

// Without the roof. `threads` 0 means one per core, an empty `isa` the best of this CPU. Errors: as
// kernels::make_cpu_ops.
Result<MachineFacts> machine_facts(int32_t threads, const std::string& isa);

boost::json::object machine_json(const MachineFacts& machine);
// Two lines for people.
std::string machine_text(const MachineFacts& machine);

}  // namespace puna::cli
