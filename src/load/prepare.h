// SPDX-License-Identifier: Apache-2.0
// The questions before a run: which model, and how many tokens a word is.
#pragma once

#include "base/result.h"
#include "load/target.h"

namespace puna::load {

// Fills in `model` when empty, and the two measures of tokens where the server has /tokenize.
// Blocks. Errors: no server there, no model named.
Result<> prepare(Target& target);

}  // namespace puna::load
