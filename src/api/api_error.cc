// SPDX-License-Identifier: Apache-2.0
#include "api/api_error.h"

#include <fmt/format.h>

#include <cmath>

#include "api/json_text.h"

namespace puna::api {
namespace {

// OpenAI's names; its clients choose the exception by status and show the type.
std::string_view error_type(int status) {
  switch (status) {
    case 429:
      return "rate_limit_error";
    default:
      return status >= 500 ? "server_error" : "invalid_request_error";
  }
}

void append_string_or_null(std::string& out, std::string_view text) {
  if (text.empty()) {
    out += "null";
  } else {
    append_json_string(out, text);
  }
}

}  // namespace

ApiError bad_field(std::string_view field, std::string_view code, std::string message) {
  return {.status = 400, .message = std::move(message), .param = std::string(field), .code = code};
}

ApiError from_error(const Error& error) {
  ApiError result{.message = error.message(), .param = {}, .code = {}};
  switch (error.code()) {
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kUnsupported:
      result.status = 400;
      break;
    case ErrorCode::kNotFound:
      result.status = 404;
      break;
    case ErrorCode::kResourceExhausted:
      result.status = 429;
      break;
    case ErrorCode::kUnavailable:
      result.status = 503;
      break;
    case ErrorCode::kCorrupt:
    case ErrorCode::kIo:
    case ErrorCode::kInternal:
      result.status = 500;
      break;
  }
  return result;
}

ApiError from_refusal(const engine::Refusal& refusal) {
  return {.status = refusal.draining ? 503 : 429,
          .message = refusal.message,
          .param = {},
          .code = refusal.draining ? "server_draining" : "server_overloaded",
          .retry_after_s = refusal.retry_after_s,
          .tokens_ahead = refusal.tokens_ahead,
          .max_tokens_now = refusal.max_tokens_now,
          .reason = reason_name(refusal.reason)};
}

std::string_view reason_name(engine::RefusalReason reason) {
  switch (reason) {
    case engine::RefusalReason::kQueueFull:
      return "queue_full";
    case engine::RefusalReason::kClassRefused:
      return "class_refused";
    case engine::RefusalReason::kDeadline:
      return "deadline";
    case engine::RefusalReason::kDraining:
      return "draining";
  }
  return "";
}

std::string error_json(const ApiError& error) {
  std::string out = R"({"error":{"message":)";
  append_json_string(out, error.message);
  out += R"(,"type":)";
  append_json_string(out, error_type(error.status));
  out += R"(,"param":)";
  append_string_or_null(out, error.param);
  out += R"(,"code":)";
  append_string_or_null(out, error.code);
  if (error.tokens_ahead >= 0) {
    out += R"(,"tokens_ahead":)";
    append_json_integer(out, error.tokens_ahead);
  }
  if (error.max_tokens_now >= 0) {
    out += R"(,"max_tokens_now":)";
    append_json_integer(out, error.max_tokens_now);
  }
  if (!error.reason.empty()) {
    out += R"(,"reason":)";
    append_json_string(out, error.reason);
  }
  out += "}}";
  return out;
}

HttpResponse error_response(const ApiError& error) {
  HttpResponse response;
  response.status = error.status;
  response.body = error_json(error);
  if (error.status == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  if (error.retry_after_s > 0.0) {
    // Retry-After has whole seconds only; OpenAI's clients prefer the exact one.
    response.headers.emplace_back("Retry-After",
                                  fmt::format("{:.0f}", std::ceil(error.retry_after_s)));
    response.headers.emplace_back("retry-after-ms",
                                  fmt::format("{:.0f}", std::ceil(error.retry_after_s * 1000.0)));
  }
  for (const auto& header : error.headers) response.headers.push_back(header);
  if (error.never) response.headers.emplace_back("x-should-retry", "false");
  return response;
}

}  // namespace puna::api
