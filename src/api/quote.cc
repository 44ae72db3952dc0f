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

// Of the first variant that would take it, else of the first. Sets which one it is.
Result<engine::Quote> quote_in_order(const ServedModel& model, const Routed& routed,
                                     const engine::Request& request, size_t& variant) {
  Result<engine::Quote> first = model.engines()[variant]->quote(request);
  for (const uint8_t index : routed.order.indexes().subspan(1)) {
    if (first.ok() && first->admitted) break;
    Result<engine::Quote> other = model.engines()[index]->quote(request);
    if (!other.ok() || !other->admitted) continue;
    variant = index;
    return other;
  }
  return first;
}

std::string route_json(const ServedModel& model, const Routed& routed, size_t variant) {
  if (model.variants.empty()) return {};
  return fmt::format(R"(,"variant":{},"task":"{}","task_confidence":{:.2f})",
                     json_string(model.variants[variant].name),
                     task_family_name(routed.found.family), routed.found.confidence);
}

}  // namespace

HttpResponse quote_response(const ServedModel& model, const ApiRequest& request,
                            const RequestTerms& terms, const Routed& routed) {
  std::vector<TokenPrompt> prompts;
  if (auto error = build_prompts(model, request, prompts)) return error_response(*error);
  const std::vector<engine::Request> requests =
      build_engine_requests(model, request, prompts, "quote", 0, terms);
  size_t variant = routed.order.variants[0];
  const Result<engine::Quote> quote = quote_in_order(model, routed, requests.front(), variant);
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
      R"("tokens_ahead":{},"refusal":{}{}}})",
      quote->admitted && !over_rate, class_name(terms.request_class),
      requests.front().prompt.size(), requests.front().stop.max_tokens, quote->ttft_p50_s,
      quote->ttft_p95_s, quote->end_p50_s, quote->end_p95_s, quote->tokens_ahead, refusal,
      route_json(model, routed, variant));
  return response;
}

namespace {

std::unique_ptr<engine::Refusal> refusal_of(const engine::Engine& engine,
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

}  // namespace

std::unique_ptr<engine::Refusal> refusal_of_any(const ServedModel& model,
                                                engine::RequestClass request_class, int32_t tenant,
                                                size_t body_bytes) {
  std::unique_ptr<engine::Refusal> soonest;
  for (const engine::Engine* engine : model.engines()) {
    auto refusal = refusal_of(*engine, request_class, tenant, body_bytes);
    if (!refusal) return nullptr;
    if (!soonest || refusal->retry_after_s < soonest->retry_after_s) soonest = std::move(refusal);
  }
  return soonest;
}

int32_t default_output_tokens(const ServedModel& model, const RequestTerms& terms) {
  return model.classes[static_cast<size_t>(terms.request_class)].default_output_tokens;
}

}  // namespace puna::api
