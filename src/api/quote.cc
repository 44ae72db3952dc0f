// SPDX-License-Identifier: Apache-2.0
#include "api/quote.h"

#include <fmt/format.h>

#include <algorithm>

#include "api/json_text.h"
#include "api/prompt_builder.h"
#include "api/token_charge.h"

namespace puna::api {
namespace {

constexpr int64_t kBytesPerToken = 4;  // of English in JSON, for a body nobody has read

std::string refusal_json(const engine::Refusal* refusal) {
  if (refusal == nullptr) return "null";
  return fmt::format(
      R"({{"status":{},"reason":"{}","message":{},"retry_after_s":{:.3f},"max_tokens_now":{}}})",
      refusal->draining ? 503 : 429, reason_name(refusal->reason), json_string(refusal->message),
      refusal->retry_after_s, refusal->max_tokens_now);
}

// Of what the key may still use, as a call of it would be told.
std::string rate_refusal_json(const ApiError& error, int64_t tokens_left) {
  const std::string retry = error.never ? "null" : fmt::format("{:.3f}", error.retry_after_s);
  return fmt::format(
      R"({{"status":{},"reason":"{}","message":{},"retry_after_s":{},"max_tokens_now":{}}})",
      error.status, error.reason, json_string(error.message), retry, tokens_left);
}

}  // namespace

HttpResponse quote_response(const ServedModel& model, const ApiRequest& request,
                            const RequestTerms& terms) {
  std::vector<TokenPrompt> prompts;
  if (auto error = build_prompts(model, request, prompts)) return error_response(*error);
  const std::vector<engine::Request> requests =
      build_engine_requests(model, request, prompts, "quote", 0, terms);
  const Result<engine::Quote> quote = model.engine->quote(requests.front());
  if (!quote.ok()) {
    ApiError error = from_error(quote.error());
    if (quote.error().code() == ErrorCode::kInvalidArgument) error.code = "context_length_exceeded";
    return error_response(error);
  }
  // A call takes its prompts once and the output of every choice.
  int64_t tokens = 0;
  for (const TokenPrompt& prompt : prompts) tokens += static_cast<int64_t>(prompt.ids.size());
  const int64_t prompt_tokens = tokens;
  const int32_t default_output = default_output_tokens(model, terms);
  for (const engine::Request& one : requests) tokens += charged_tokens(one, default_output);
  const TimeNs now_ns = SteadyClock().now_ns();
  const MaybeError over_rate = TokenCharge(terms.rate).look(tokens, now_ns);
  std::string refusal = refusal_json(quote->refusal.get());
  if (over_rate) {
    const int64_t left = terms.rate->remaining(now_ns) - prompt_tokens;
    refusal = rate_refusal_json(*over_rate, std::max<int64_t>(left, 0));
  }
  HttpResponse response;
  response.body = fmt::format(
      R"({{"object":"quote","admitted":{},"class":"{}","prompt_tokens":{},"max_tokens":{},)"
      R"("ttft_s":{{"p50":{:.4f},"p95":{:.4f}}},"end_s":{{"p50":{:.4f},"p95":{:.4f}}},)"
      R"("tokens_ahead":{},"refusal":{}}})",
      quote->admitted && !over_rate, class_name(terms.request_class),
      requests.front().prompt.size(), requests.front().stop.max_tokens, quote->ttft_p50_s,
      quote->ttft_p95_s, quote->end_p50_s, quote->end_p95_s, quote->tokens_ahead, refusal);
  return response;
}

std::unique_ptr<engine::Refusal> refusal_of_any(const engine::Engine& engine,
                                                engine::RequestClass request_class, int32_t tenant,
                                                size_t body_bytes) {
  engine::Request request;
  request.prompt = {0};
  request.stop.max_tokens = 1;
  request.request_class = request_class;
  request.tenant = tenant;
  Result<engine::Quote> smallest = engine.quote(request);
  if (!smallest.ok() || smallest->admitted) return nullptr;
  const int64_t longest = std::max(engine.limits().max_model_len - 1, 1);
  request.prompt.assign(
      static_cast<size_t>(
          std::clamp(static_cast<int64_t>(body_bytes) / kBytesPerToken, int64_t{1}, longest)),
      0);
  Result<engine::Quote> likely = engine.quote(request);
  const bool better = likely.ok() && likely->refusal;
  return better ? std::move(likely->refusal) : std::move(smallest->refusal);
}

int32_t default_output_tokens(const ServedModel& model, const RequestTerms& terms) {
  return model.classes[static_cast<size_t>(terms.request_class)].default_output_tokens;
}

}  // namespace puna::api
