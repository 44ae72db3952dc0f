// SPDX-License-Identifier: Apache-2.0
// Any bytes as the body of each endpoint. What is taken must be in range everywhere: it is built
// into engine requests, whose ranges are checked again here.
#include <cstdint>

#include "api/prompt_builder.h"
#include "engine/solo_run.h"

namespace puna::api {
namespace {

constexpr int32_t kContext = 512;

struct World {
  model::Tokenizer tokenizer = engine::tiny_tokenizer();
  model::ChatTemplate chat_template = model::ChatTemplate::choose("llama3", tokenizer).value();
  ServedModel model{.tokenizer = &tokenizer,
                    .chat_template = &chat_template,
                    .names = {"m"},
                    .max_model_len = kContext};
};

void check_sampling(const engine::SamplingParams& sampling) {
  CHECK(sampling.temperature >= 0.0F && sampling.temperature <= 100.0F);
  CHECK(sampling.top_p > 0.0F && sampling.top_p <= 1.0F);
  CHECK(sampling.min_p >= 0.0F && sampling.min_p <= 1.0F);
  CHECK(sampling.repetition_penalty > 0.0F && sampling.repetition_penalty <= 10.0F);
  CHECK(sampling.frequency_penalty >= -2.0F && sampling.frequency_penalty <= 2.0F);
  CHECK(sampling.presence_penalty >= -2.0F && sampling.presence_penalty <= 2.0F);
  CHECK_GE(sampling.top_k, 0);
  CHECK(sampling.top_logprobs >= -1 && sampling.top_logprobs <= engine::kMaxTopLogprobs);
  for (const auto& [id, bias] : sampling.logit_bias) {
    CHECK(id >= 0 && id < engine::kTinyVocab && bias >= -100.0F && bias <= 100.0F);
  }
}

void check_request(const engine::Request& request) {
  CHECK(!request.prompt.empty());
  for (const TokenId id : request.prompt) CHECK(id >= 0 && id < engine::kTinyVocab);
  for (const TokenId id : request.stop.stop_token_ids) CHECK(id >= 0 && id < engine::kTinyVocab);
  CHECK_GE(request.stop.max_tokens, 1);
  CHECK_LE(request.prompt.size() + static_cast<size_t>(request.stop.max_tokens), size_t{kContext});
  CHECK(request.stop.min_tokens >= 0 && request.stop.min_tokens <= request.stop.max_tokens);
  CHECK_LE(request.stop.stop_strings.size(), size_t{engine::kMaxStopStrings});
  check_sampling(request.sampling);
}

void try_endpoint(const World& world, Endpoint endpoint, std::string_view body) {
  ApiRequest request;
  const RequestLimits limits{.vocab_size = engine::kTinyVocab, .max_model_len = kContext};
  if (auto error = parse_request(endpoint, body, limits, request)) {
    CHECK(error->status == 400 || error->status == 413);
    CHECK(!error_json(*error).empty());
    return;
  }
  if (endpoint == Endpoint::kDetokenize) {
    world.tokenizer.decode(*request.tokens, false);
    return;
  }
  std::vector<TokenPrompt> prompts;
  if (auto error = build_prompts(world.model, request, prompts)) {
    CHECK_EQ(error->status, 400);
    return;
  }
  if (endpoint == Endpoint::kTokenize) return;
  const auto requests = build_engine_requests(world.model, request, prompts, "id", 1, {});
  CHECK_EQ(requests.size(), prompts.size() * static_cast<size_t>(request.choices()));
  CHECK_LE(requests.size(), size_t{engine::kMaxChoices});
  for (const engine::Request& one : requests) check_request(one);
}

}  // namespace
}  // namespace puna::api

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace puna::api;  // NOLINT(google-build-using-namespace)
  static const World world;
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  for (const Endpoint endpoint :
       {Endpoint::kChat, Endpoint::kCompletions, Endpoint::kTokenize, Endpoint::kDetokenize}) {
    try_endpoint(world, endpoint, body);
  }
  return 0;
}
