// SPDX-License-Identifier: Apache-2.0
// How a request wants to be treated, and how it may be: its class, tenant, deadline and latency
// targets, from its headers, its body and its key.
//
//   x-puna-class: batch            or "service_tier": "flex", or "priority" above 0 (both: batch)
//   x-request-timeout-ms: 2000     or "deadline_ms": 2000; the earlier one counts
//   x-llm-d-slo-ttft-ms: 300       time to first token that must be possible, else 429 at once
//   x-llm-d-slo-tpot-ms: 40        time between tokens, likewise
//   x-puna-timings: 1              the answer tells where its time went
#pragma once

#include <optional>
#include <string_view>

#include "api/api_keys.h"
#include "api/api_request.h"
#include "api/http_message.h"

namespace puna::api {

inline constexpr double kMaxTimeoutMs = 86'400'000;  // of deadlines and targets: a day

struct RequestTerms {
  engine::RequestClass request_class = engine::RequestClass::kInteractive;
  int32_t tenant = 0;
  uint64_t salt = 0;
  TokenRate* rate = nullptr;
  TimeNs arrived_ns = 0;
  TimeNs deadline_ns = 0;  // absolute; 0: none
  TimeNs ttft_target_ns = 0;
  TimeNs tpot_target_ns = 0;
  bool timings = false;
};

std::string_view class_name(engine::RequestClass request_class);
std::optional<engine::RequestClass> class_named(std::string_view name);

// Errors: 400 for what is no class or no time, 403 for a class above the key's.
MaybeError read_terms(const HttpRequest& http, const ApiRequest& request, const Caller& caller,
                      TimeNs now_ns, RequestTerms& terms);

// The class before the body is parsed, for a refusal that costs nothing. Empty: the body may still
// ask for another one.
std::optional<engine::RequestClass> class_of_unparsed(const HttpRequest& http,
                                                      const Caller& caller);

}  // namespace puna::api
