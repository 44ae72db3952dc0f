// SPDX-License-Identifier: Apache-2.0
#include "api/prompt_builder.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <limits>

namespace puna::api {
namespace {

// A prompt as text. Special tokens in it count, as everywhere where clients write their own
// templates; a BOS that the client wrote is not doubled.
std::vector<TokenId> encode_text(const model::Tokenizer& tokenizer, const std::string& text,
                                 bool add_special_tokens) {
  bool add_bos = add_special_tokens && tokenizer.adds_bos() && tokenizer.bos().has_value();
  if (add_bos && text.starts_with(tokenizer.token_bytes(*tokenizer.bos()))) add_bos = false;
  return tokenizer.encode(text, {.add_bos = add_bos, .parse_special = true});
}

MaybeError check_length(const ServedModel& model, const ApiRequest& request, size_t prompt_tokens) {
  const auto tokens = static_cast<int64_t>(prompt_tokens);
  const std::string_view field = request.messages ? "messages" : "prompt";
  if (tokens == 0) {
    return bad_field(field, "invalid_value", fmt::format("`{}` is empty: it has no token", field));
  }
  const int64_t room = model.max_model_len - tokens;
  const int64_t wanted = request.output_limit().value_or(request.messages ? 1 : 16);
  if (request.output_limit() && wanted > room) {
    return bad_field(
        field, "context_length_exceeded",
        fmt::format(
            "This model's maximum context length is {} tokens. However, you requested {} "
            "tokens ({} in the {}, {} in the completion). Please reduce the length of the {} "
            "or the completion.",
            model.max_model_len, tokens + wanted, tokens, field, wanted, field));
  }
  if (room < 1) {
    return bad_field(
        field, "context_length_exceeded",
        fmt::format(
            "This model's maximum context length is {} tokens. However, your {} resulted in "
            "{} tokens, which leaves no room for an answer. Please reduce the length of the {}.",
            model.max_model_len, field, tokens, field));
  }
  if (request.min_tokens.value_or(0) > std::max(wanted, request.messages ? room : wanted)) {
    return bad_field("min_tokens", "invalid_value",
                     fmt::format("`min_tokens` is {}, but the answer can have at most {} tokens",
                                 *request.min_tokens, request.messages ? room : wanted));
  }
  return {};
}

MaybeError build_chat_prompt(const ServedModel& model, const ApiRequest& request,
                             std::vector<TokenPrompt>& prompts) {
  Result<std::vector<TokenId>> ids = model.chat_template->encode(
      *model.tokenizer, *request.messages, request.add_generation_prompt, today());
  if (!ids.ok()) {
    ApiError error = from_error(ids.error());
    error.status = 400;
    error.param = "messages";
    error.code = "invalid_value";
    return error;
  }
  prompts.push_back({.ids = std::move(ids).value(), .echo = {}});
  return {};
}

engine::SamplingParams sampling_of(const ApiRequest& request) {
  engine::SamplingParams sampling;
  sampling.temperature = request.temperature;
  sampling.top_k = static_cast<int32_t>(std::max<int64_t>(request.top_k.value_or(0), 0));
  sampling.top_p = request.top_p;
  sampling.min_p = request.min_p;
  sampling.repetition_penalty = request.repetition_penalty;
  sampling.frequency_penalty = request.frequency_penalty;
  sampling.presence_penalty = request.presence_penalty;
  sampling.logit_bias = request.logit_bias;
  sampling.top_logprobs = request.engine_top_logprobs();
  return sampling;
}

engine::StopRules stop_rules_of(const ServedModel& model, const ApiRequest& request,
                                size_t prompt_tokens) {
  const int64_t room = model.max_model_len - static_cast<int64_t>(prompt_tokens);
  // OpenAI's defaults: a completion has 16 tokens, a chat answer what is left of the context.
  const int64_t limit = request.output_limit().value_or(request.messages ? room : 16);
  engine::StopRules rules;
  rules.max_tokens = static_cast<int32_t>(std::min(limit, room));
  rules.min_tokens =
      static_cast<int32_t>(std::min<int64_t>(request.min_tokens.value_or(0), rules.max_tokens));
  rules.stop_token_ids = request.stop_token_ids;
  rules.stop_strings = request.stop;
  rules.ignore_eos = request.ignore_eos;
  return rules;
}

}  // namespace

MaybeError build_prompts(const ServedModel& model, const ApiRequest& request,
                         std::vector<TokenPrompt>& prompts) {
  if (request.messages) {
    if (auto error = build_chat_prompt(model, request, prompts)) return error;
  } else {
    for (const Prompt& prompt : *request.prompts) {
      TokenPrompt& built = prompts.emplace_back();
      built.ids = prompt.is_ids
                      ? prompt.ids
                      : encode_text(*model.tokenizer, prompt.text, request.add_special_tokens);
      if (request.echo) {
        built.echo = prompt.is_ids
                         ? model.tokenizer->decode(prompt.ids, request.skip_special_tokens)
                         : prompt.text;
      }
    }
  }
  if (request.endpoint == Endpoint::kTokenize) return {};  // any length may be counted
  for (const TokenPrompt& prompt : prompts) {
    if (auto error = check_length(model, request, prompt.ids.size())) return error;
  }
  return {};
}

std::vector<engine::Request> build_engine_requests(const ServedModel& model,
                                                   const ApiRequest& request,
                                                   std::span<const TokenPrompt> prompts,
                                                   std::string_view id, uint64_t drawn_seed,
                                                   const RequestTerms& terms) {
  std::vector<engine::Request> result;
  result.reserve(prompts.size() * static_cast<size_t>(request.choices()));
  for (size_t p = 0; p < prompts.size(); ++p) {
    // Without a client's seed, two equal prompts in one call should differ.
    uint64_t seed = request.seed ? static_cast<uint64_t>(*request.seed) : mix_seed(drawn_seed + p);
    for (int32_t i = 0; i < request.choices(); ++i) {
      engine::Request& one = result.emplace_back();
      one.id = fmt::format("{}-{}", id, result.size() - 1);
      one.prompt = prompts[p].ids;
      one.sampling = sampling_of(request);
      one.sampling.seed = seed;
      one.stop = stop_rules_of(model, request, prompts[p].ids.size());
      one.cache_salt = terms.salt;
      one.request_class = terms.request_class;
      one.tenant = terms.tenant;
      one.deadline_ns = terms.deadline_ns;
      one.ttft_target_ns = terms.ttft_target_ns;
      one.tpot_target_ns = terms.tpot_target_ns;
      one.max_tokens_given = request.output_limit().has_value() || !request.messages;
      seed = mix_seed(seed);
    }
  }
  return result;
}

uint64_t mix_seed(uint64_t value) {  // SplitMix64's finaliser (Steele, Lea, Flood 2014)
  value += 0x9E3779B97F4A7C15U;
  value = (value ^ (value >> 30U)) * 0xBF58476D1CE4E5B9U;
  value = (value ^ (value >> 27U)) * 0x94D049BB133111EBU;
  return value ^ (value >> 31U);
}

std::string today() {
  static constexpr std::array<std::string_view, 12> kMonths = {
      "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  return fmt::format("{:02} {} {}", parts.tm_mday, kMonths.at(static_cast<size_t>(parts.tm_mon)),
                     parts.tm_year + 1900);
}

}  // namespace puna::api
