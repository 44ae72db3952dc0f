// SPDX-License-Identifier: Apache-2.0
// An error as an OpenAI client understands it: status, message, type, param and code.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "api/http_message.h"
#include "base/result.h"
#include "engine/engine.h"

namespace puna::api {

struct ApiError {
  int status = 400;
  std::string message;
  std::string param;      // the field at fault; empty: null
  std::string_view code;  // empty: null
  // Only for refusals that may pass later:
  double retry_after_s = 0.0;
  int64_t tokens_ahead = -1;
  int64_t max_tokens_now = -1;   // the largest max_tokens that would be taken now
  std::string_view reason = {};  // a refusal's: reason_name()
  HttpHeaders headers = {};
  bool never = false;  // repeating it is no use: x-should-retry: false
};

// Nothing, or what is wrong.
using MaybeError = std::optional<ApiError>;

ApiError bad_field(std::string_view field, std::string_view code, std::string message);
ApiError from_error(const Error& error);
ApiError from_refusal(const engine::Refusal& refusal);
// "queue_full", "class_refused", "deadline", "draining".
std::string_view reason_name(engine::RefusalReason reason);

// {"error":{"message":…,"type":…,"param":…,"code":…}}
std::string error_json(const ApiError& error);
HttpResponse error_response(const ApiError& error);

}  // namespace puna::api
