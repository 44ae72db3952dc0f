// SPDX-License-Identifier: Apache-2.0
// From a checked body to what the engine takes: prompts as tokens, the room that is left for the
// answer, sampling parameters and seeds. Takes time in proportion to the prompt: long ones run on
// the work pool.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "api/api_request.h"
#include "api/request_terms.h"
#include "api/server.h"

namespace puna::api {

struct TokenPrompt {
  std::vector<TokenId> ids;
  std::string echo;  // the prompt's text, when the answer repeats it
};

// Errors: an empty prompt, and code context_length_exceeded with the exact counts.
MaybeError build_prompts(const ServedModel& model, const ApiRequest& request,
                         std::vector<TokenPrompt>& prompts);

// One engine request per choice: all of the first prompt, then all of the second. `drawn_seed` is
// used when the request has none. Choice i of every prompt has the same seed if the client gave
// one, so a prompt in a batch gets the answer that it gets alone.
std::vector<engine::Request> build_engine_requests(const ServedModel& model,
                                                   const ApiRequest& request,
                                                   std::span<const TokenPrompt> prompts,
                                                   std::string_view id, uint64_t drawn_seed,
                                                   const RequestTerms& terms);

// A bijective scrambling of 64 bits: consecutive numbers give unrelated seeds.
uint64_t mix_seed(uint64_t value);

// "26 Jul 2024": for templates that tell the model the date.
std::string today();

}  // namespace puna::api
