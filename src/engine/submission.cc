// SPDX-License-Identifier: Apache-2.0
#include "engine/submission.h"

#include <algorithm>

namespace puna::engine {
namespace {

Result<> check_ids(std::span<const TokenId> ids, int32_t vocab_size, std::string_view field) {
  for (TokenId id : ids) {
    if (id >= 0 && id < vocab_size) continue;
    return Error(ErrorCode::kInvalidArgument,
                 "{}: token id {} is not in the model's vocabulary (0 to {})", field, id,
                 vocab_size - 1);
  }
  return Ok{};
}

Result<> check_lengths(int64_t prompt, const StopRules& stop, const BackendLimits& limits) {
  if (prompt == 0) return Error(ErrorCode::kInvalidArgument, "the prompt is empty");
  if (stop.max_tokens < 1) {
    return Error(ErrorCode::kInvalidArgument, "max_tokens must be at least 1, but is {}",
                 stop.max_tokens);
  }
  if (stop.min_tokens < 0 || stop.min_tokens > stop.max_tokens) {
    return Error(ErrorCode::kInvalidArgument,
                 "min_tokens must be between 0 and max_tokens ({}), but is {}", stop.max_tokens,
                 stop.min_tokens);
  }
  const int64_t total = prompt + stop.max_tokens;
  if (total > limits.max_model_len) {
    return Error(
        ErrorCode::kInvalidArgument,
        "This model's maximum context length is {} tokens. However, you requested {} tokens "
        "({} in the messages, {} in the completion). Please reduce the length of the "
        "messages or completion.",
        limits.max_model_len, total, prompt, stop.max_tokens);
  }
  if (kv::blocks_for_tokens(total) > limits.num_blocks) {
    return Error(
        ErrorCode::kInvalidArgument,
        "The server's KV pool holds {} tokens. However, you requested {} tokens ({} in the "
        "messages, {} in the completion). Please reduce the length of the messages or "
        "completion.",
        int64_t{limits.num_blocks} * kv::kBlockTokens, total, prompt, stop.max_tokens);
  }
  return Ok{};
}

}  // namespace

void apply_policy(Request& request, const EngineConfig& config, const BackendLimits& limits) {
  const ClassPolicy& policy = config.classes[static_cast<size_t>(request.request_class)];
  int32_t& max_tokens = request.stop.max_tokens;
  if (policy.max_output_tokens > 0) max_tokens = std::min(max_tokens, policy.max_output_tokens);
  if (request.max_tokens_given) return;
  const int64_t room =
      std::min<int64_t>(limits.max_model_len, int64_t{limits.num_blocks} * kv::kBlockTokens) -
      static_cast<int64_t>(request.prompt.size());
  max_tokens = static_cast<int32_t>(std::clamp<int64_t>(room, 1, std::max(1, max_tokens)));
}

Result<> check_request(const Request& request, const EngineConfig& config,
                       const BackendLimits& limits) {
  if (request.tenant < 0 || static_cast<size_t>(request.tenant) >= config.tenants.size()) {
    return Error(ErrorCode::kInvalidArgument, "tenant {} is not one of the {} configured",
                 request.tenant, config.tenants.size());
  }
  RETURN_IF_ERROR(check_lengths(static_cast<int64_t>(request.prompt.size()), request.stop, limits));
  RETURN_IF_ERROR(check_ids(request.prompt, limits.vocab_size, "prompt"));
  RETURN_IF_ERROR(check_ids(request.stop.stop_token_ids, limits.vocab_size, "stop_token_ids"));
  for (const auto& [id, bias] : request.sampling.logit_bias) {
    RETURN_IF_ERROR(check_ids(std::span(&id, 1), limits.vocab_size, "logit_bias"));
  }
  return Ok{};
}

std::unique_ptr<Sequence> make_sequence(Request request, const EngineConfig& config,
                                        const BackendLimits& limits,
                                        const model::Tokenizer& tokenizer, Waker* waker) {
  auto sequence = std::make_unique<Sequence>();
  sequence->sampling = std::move(request.sampling);
  sequence->stop = std::move(request.stop);
  sequence->cache_salt = request.cache_salt;
  const ClassPolicy& policy = config.classes[static_cast<size_t>(request.request_class)];
  sequence->request_class = request.request_class;
  sequence->tenant = request.tenant;
  sequence->deadline_ns = request.deadline_ns;
  sequence->tpot_target_ns =
      request.tpot_target_ns > 0 ? request.tpot_target_ns : policy.tpot_target_ns;
  sequence->prompt_tokens = static_cast<int32_t>(request.prompt.size());
  const StopRules& stop = sequence->stop;
  const size_t longest = request.prompt.size() + static_cast<size_t>(stop.max_tokens);
  sequence->tokens.reserve(longest);
  sequence->tokens.assign(request.prompt.begin(), request.prompt.end());
  const int32_t output = request.max_tokens_given
                             ? stop.max_tokens
                             : std::min(stop.max_tokens, policy.default_output_tokens);
  sequence->reserved_blocks = kv::blocks_for_tokens(int64_t{sequence->prompt_tokens} + output);
  const auto blocks = static_cast<size_t>(kv::blocks_for_tokens(static_cast<int64_t>(longest)));
  sequence->block_table.reserve(blocks);
  if (limits.num_host_blocks > 0) sequence->host_table.reserve(blocks);

  sequence->stop_tokens = stop.stop_token_ids;
  if (!stop.ignore_eos) {
    for (TokenId id : tokenizer.end_of_generation()) {
      if (id < limits.vocab_size) sequence->stop_tokens.push_back(id);
    }
  }
  std::sort(sequence->stop_tokens.begin(), sequence->stop_tokens.end());
  if (!stop.stop_strings.empty()) sequence->text.emplace(tokenizer, stop.stop_strings);
  sequence->channel =
      std::make_shared<RequestChannel>(stop.max_tokens + 1, sequence->sampling.top_logprobs, waker);
  return sequence;
}

}  // namespace puna::engine
