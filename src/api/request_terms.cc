// SPDX-License-Identifier: Apache-2.0
#include "api/request_terms.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>

namespace puna::api {
namespace {

using engine::RequestClass;

constexpr std::string_view kClassHeader = "x-puna-class";
constexpr std::array<std::string_view, engine::kNumClasses> kClassNames = {"interactive", "batch",
                                                                           "background"};

// A header of milliseconds; 0 when it is not there.
MaybeError read_ms(const HttpRequest& http, std::string_view name, TimeNs& target_ns) {
  const std::string_view text = http.header(name);
  if (text.empty()) return {};
  double value = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = parsed.ec == std::errc() && parsed.ptr == text.data() + text.size();
  if (!whole || !(value > 0 && value <= kMaxTimeoutMs)) {
    return bad_field(name, "invalid_value",
                     fmt::format("the header {} must be milliseconds above 0 and at most {:.0f}",
                                 name, kMaxTimeoutMs));
  }
  target_ns = static_cast<TimeNs>(value * static_cast<double>(kNsPerMs));
  return {};
}

MaybeError read_class(const HttpRequest& http, const ApiRequest& request, const Caller& caller,
                      RequestClass& target) {
  target = caller.highest_class;
  const std::string_view named = http.header(kClassHeader);
  if (!named.empty()) {
    const std::optional<RequestClass> wanted = class_named(named);
    if (!wanted) {
      return bad_field(
          kClassHeader, "invalid_value",
          fmt::format("the header {} must be interactive, batch or background", kClassHeader));
    }
    if (*wanted < caller.highest_class) {
      return ApiError{.status = 403,
                      .message = fmt::format("this API key may ask for class {} at most, not {}",
                                             class_name(caller.highest_class), named),
                      .param = std::string(kClassHeader),
                      .code = "class_not_allowed"};
    }
    target = *wanted;
  } else if (request.service_tier == "flex" || request.priority.value_or(0) > 0) {
    target = std::max(target, RequestClass::kBatch);
  }
  return {};
}

}  // namespace

std::string_view class_name(RequestClass request_class) {
  return kClassNames[static_cast<size_t>(request_class)];
}

std::optional<RequestClass> class_named(std::string_view name) {
  for (size_t i = 0; i < kClassNames.size(); ++i) {
    if (kClassNames[i] == name) return static_cast<RequestClass>(i);
  }
  return std::nullopt;
}

MaybeError read_terms(const HttpRequest& http, const ApiRequest& request, const Caller& caller,
                      TimeNs now_ns, RequestTerms& terms) {
  terms.tenant = caller.tenant;
  terms.salt = cache_salt(caller.salt, request.cache_salt);
  terms.rate = caller.rate;
  terms.arrived_ns = now_ns;
  if (auto error = read_class(http, request, caller, terms.request_class)) return error;
  TimeNs timeout_ns = 0;
  if (auto error = read_ms(http, "x-request-timeout-ms", timeout_ns)) return error;
  if (request.deadline_ms) {
    const TimeNs body_ns = *request.deadline_ms * kNsPerMs;
    timeout_ns = timeout_ns == 0 ? body_ns : std::min(timeout_ns, body_ns);
  }
  if (timeout_ns > 0) terms.deadline_ns = now_ns + timeout_ns;
  if (auto error = read_ms(http, "x-llm-d-slo-ttft-ms", terms.ttft_target_ns)) return error;
  if (auto error = read_ms(http, "x-llm-d-slo-tpot-ms", terms.tpot_target_ns)) return error;
  const std::string_view timings = http.header("x-puna-timings");
  terms.timings = timings == "1" || timings == "true";
  return {};
}

std::optional<RequestClass> class_of_unparsed(const HttpRequest& http, const Caller& caller) {
  const std::string_view named = http.header(kClassHeader);
  if (!named.empty()) {
    const std::optional<RequestClass> wanted = class_named(named);
    return wanted && *wanted >= caller.highest_class ? wanted : std::nullopt;
  }
  for (const std::string_view field : {"\"service_tier\"", "\"priority\""}) {
    if (http.body.find(field) != std::string::npos) return std::nullopt;
  }
  return caller.highest_class;
}

}  // namespace puna::api
