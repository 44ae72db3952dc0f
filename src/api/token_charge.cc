// SPDX-License-Identifier: Apache-2.0
#include "api/token_charge.h"

#include <fmt/format.h>

#include <algorithm>

namespace puna::api {

int64_t charged_tokens(const engine::Request& request, int32_t default_output_tokens) {
  const bool counted = request.max_tokens_given || default_output_tokens == 0;
  return counted ? request.stop.max_tokens
                 : std::min(request.stop.max_tokens, default_output_tokens);
}

MaybeError TokenCharge::take(int64_t tokens, TimeNs now_ns) {
  if (rate_ == nullptr) return {};
  MaybeError error = error_after(rate_->take(tokens, now_ns), tokens, now_ns);
  if (!error) taken_ = tokens;
  return error;
}

MaybeError TokenCharge::look(int64_t tokens, TimeNs now_ns) const {
  if (rate_ == nullptr) return {};
  return error_after(rate_->wait_for(tokens, now_ns), tokens, now_ns);
}

MaybeError TokenCharge::error_after(std::optional<TimeNs> wait_ns, int64_t tokens,
                                    TimeNs now_ns) const {
  if (wait_ns && *wait_ns == 0) return {};
  ApiError error{.status = 429, .message = {}, .param = {}, .code = "rate_limit_exceeded"};
  error.reason = "rate_limited";
  error.headers = headers();
  if (!wait_ns) {
    error.never = true;
    error.message = fmt::format(
        "This request may use {} tokens, but this API key has {} tokens a minute. Shorten the "
        "prompt or lower max_tokens.",
        tokens, rate_->limit());
    return error;
  }
  error.retry_after_s = to_seconds(*wait_ns);
  error.message = fmt::format(
      "This request may use {} tokens, but of this API key's {} tokens a minute {} are left. Retry "
      "in {:.1f} s.",
      tokens, rate_->limit(), rate_->remaining(now_ns), error.retry_after_s);
  return error;
}

void TokenCharge::settle(int64_t used) {
  if (rate_ != nullptr) rate_->give_back(taken_ - used);
  taken_ = used;
}

HttpHeaders TokenCharge::headers() const {
  if (rate_ == nullptr) return {};
  const TimeNs now_ns = SteadyClock().now_ns();
  return {
      {"x-ratelimit-limit-tokens", fmt::format("{}", rate_->limit())},
      {"x-ratelimit-remaining-tokens", fmt::format("{}", rate_->remaining(now_ns))},
      {"x-ratelimit-reset-tokens", fmt::format("{:.3f}s", to_seconds(rate_->full_after(now_ns)))}};
}

}  // namespace puna::api
