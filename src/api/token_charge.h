// SPDX-License-Identifier: Apache-2.0
// What one call takes from its key's token rate: an estimate at the start, corrected at the end.
// Belongs to one thread.
#pragma once

#include "api/api_error.h"
#include "api/http_message.h"
#include "api/token_rate.h"
#include "engine/request.h"

namespace puna::api {

// Output tokens that a request takes of its key's token rate at the start.
int64_t charged_tokens(const engine::Request& request, int32_t default_output_tokens);

class TokenCharge {
 public:
  explicit TokenCharge(TokenRate* rate) : rate_(rate) {}

  // An error (429, rate_limit_exceeded) when the key has no such number of tokens left.
  MaybeError take(int64_t tokens, TimeNs now_ns);
  // What take() would say.
  MaybeError look(int64_t tokens, TimeNs now_ns) const;
  // What the call really used.
  void settle(int64_t used);
  // OpenAI's x-ratelimit-*-tokens; none without a limit.
  HttpHeaders headers() const;

 private:
  MaybeError error_after(std::optional<TimeNs> wait_ns, int64_t tokens, TimeNs now_ns) const;

  TokenRate* const rate_;
  int64_t taken_ = 0;
};

}  // namespace puna::api
