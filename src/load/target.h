// SPDX-License-Identifier: Apache-2.0
// The server under load and the shape of what it is sent: prompts of about the wanted length in the
// server's own tokens, as OpenAI request bodies.
#pragma once

#include <string>
#include <vector>

#include "load/url.h"
#include "load/workload.h"

namespace puna::load {

enum class Endpoint : uint8_t { kChat, kCompletions };

struct Target {
  Url url;
  std::string model;  // empty: the first of /v1/models
  Endpoint endpoint = Endpoint::kChat;
  std::vector<Sender> tenants{Sender{}};  // at least one; its key may be empty
  std::vector<Sender> classes;
  bool ignore_eos = true;       // answers have the drawn length
  int32_t prompt_id_limit = 0;  // above 0: prompts are token ids below it, to /v1/completions
  int32_t shared_prefix_tokens = 0;
  uint64_t seed = 0;
  // Measured by calibrate() where the server has /tokenize.
  double tokens_per_word = 1;
  int32_t template_tokens = 0;  // what the chat template adds to a prompt

  std::string path() const;
  // The key of a tenant, where it has one; questions about the server go by the first.
  Headers key_headers(size_t tenant = 0) const;
};

// `count` words, the same for the same seed.
std::string words(uint64_t seed, int64_t count);

// The whole HTTP request for one that was planned.
std::string request_of(const Target& target, const PlannedRequest& planned);

}  // namespace puna::load
