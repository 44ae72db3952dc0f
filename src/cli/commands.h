// SPDX-License-Identifier: Apache-2.0
// The sub-commands, one file each. An error means that it could not start (bad input); the value is
// the exit code of what ran.
#pragma once

#include "base/clock.h"
#include "base/result.h"
#include "cli/flags.h"

namespace puna::cli {

// `started_ns` is when the process began, for the start time that is printed.
Result<int> serve(const ServeFlags& flags, TimeNs started_ns);
Result<int> run(const RunFlags& flags);
Result<int> plan_command(const PlanFlags& flags);
Result<int> inspect(const InspectFlags& flags);
Result<int> quantize(const QuantizeFlags& flags);
Result<int> bench_engine(const BenchEngineFlags& flags);
Result<int> bench_kernels(const BenchKernelsFlags& flags);
Result<int> bench_serve(const BenchServeFlags& flags);
Result<int> check_command(const CheckFlags& flags);
Result<int> divergence(const DivergenceFlags& flags);
Result<int> selftest(const SelftestFlags& flags);
Result<int> route_explain(const RouteFlags& flags);

}  // namespace puna::cli
