// SPDX-License-Identifier: Apache-2.0
// Steps that are run before the first request: they read the weights from the page cache, start the
// compute threads, and go through every path that a real step takes, sampling with all its features
// too.
#pragma once

#include <cstdint>

#include "base/clock.h"
#include "engine/backend.h"

namespace puna::cli {

// Runs steps of doubling size, up to the largest legal one, while the next is expected to end
// within `budget_ns`: memory is reserved already, so a slow machine need not wait for the largest.
// Returns the tokens of the largest step that was run.
int32_t warm_up(engine::Backend& backend, const Clock& clock, TimeNs budget_ns);

}  // namespace puna::cli
