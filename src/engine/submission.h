// SPDX-License-Identifier: Apache-2.0
// From a Request to a Sequence, on the submitting thread: checks everything that a client can get
// wrong, and allocates everything that the engine thread will need.
#pragma once

#include <memory>

#include "base/result.h"
#include "engine/backend.h"
#include "engine/sequence.h"
#include "model/tokenizer.h"

namespace puna::engine {

// kInvalidArgument, with the exact counts, for a request that could never run.
Result<> check_request(const Request& request, const BackendLimits& limits);

// `request` has passed check_request().
std::unique_ptr<Sequence> make_sequence(Request request, const BackendLimits& limits,
                                        const model::Tokenizer& tokenizer, Waker* waker);

}  // namespace puna::engine
