// SPDX-License-Identifier: Apache-2.0
// The flags of `puna bench serve` and `puna selftest`, which send requests to a server.
#pragma once

#include <CLI/CLI.hpp>

#include "cli/flags.h"

namespace puna::cli {

void add_bench_serve_flags(CLI::App& app, BenchServeFlags& flags);
void add_selftest_flags(CLI::App& app, SelftestFlags& flags);

}  // namespace puna::cli
