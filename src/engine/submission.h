// SPDX-License-Identifier: Apache-2.0
// From a Request to a Sequence, on the submitting thread: checks everything that a client can get
// wrong, and allocates everything that the engine thread will need.
#pragma once

#include <memory>

#include "base/result.h"
#include "engine/backend.h"
#include "engine/engine.h"
#include "engine/sequence.h"
#include "model/tokenizer.h"

namespace puna::engine {

// Cuts max_tokens to the class's cap and, when the client gave none, to the context and the pool.
void apply_policy(Request& request, const EngineConfig& config, const BackendLimits& limits);
// kInvalidArgument, with the exact counts, for a request that could never run.
Result<> check_request(const Request& request, const EngineConfig& config,
                       const BackendLimits& limits);

// `request` has passed apply_policy() and check_request().
std::unique_ptr<Sequence> make_sequence(Request request, const EngineConfig& config,
                                        const BackendLimits& limits,
                                        const model::Tokenizer& tokenizer, Waker* waker);

}  // namespace puna::engine
