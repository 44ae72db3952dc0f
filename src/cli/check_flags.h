// SPDX-License-Identifier: Apache-2.0
// The flags of `puna check` and `puna divergence`.
#pragma once

#include <CLI/CLI.hpp>

#include "base/result.h"
#include "cli/flags.h"

namespace puna::cli {

void add_check_flags(CLI::App& app, CheckFlags& flags);
void add_divergence_flags(CLI::App& app, DivergenceFlags& flags);

// What a range per flag can't say.
Result<> finish_check(const CheckFlags& flags);
Result<> finish_divergence(const DivergenceFlags& flags);

}  // namespace puna::cli
