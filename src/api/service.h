// SPDX-License-Identifier: Apache-2.0
// From an HTTP request to its answer, without sockets: routes, who may call, and what each endpoint
// does. Immutable but for atomics: any thread may use it. The fuzz target http_request drives it
// with the same reader (http_reader.h) as the server.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "api/api_error.h"
#include "api/api_keys.h"
#include "api/canary.h"
#include "api/generation.h"
#include "api/http_message.h"
#include "api/server.h"
#include "api/server_status.h"

namespace puna::api {

// A finished response, or a generation to submit and follow.
struct Answer {
  HttpResponse response;
  std::unique_ptr<Generation> generation;
};

class Service {
 public:
  // kAdmin answers probes and metrics only, and asks for no key.
  enum class Side : uint8_t { kServing, kAdmin };
  // `canary` may be null: /ready then believes an idle engine.
  Service(const ServedModel& model, const ServerConfig& config, ServerStatus& status, Side side,
          Canary* canary = nullptr);

  // What the head alone decides, before the body is read: unknown path, wrong method, no valid key,
  // draining. Empty: go on.
  std::optional<HttpResponse> refuse_head(const HttpRequest& request) const;
  // What is refused before the body is parsed, as not even the smallest request of its class would
  // be taken now. Takes microseconds.
  std::optional<HttpResponse> refuse_early(const HttpRequest& request) const;
  // The whole request, after refuse_head() let it pass. Takes time in proportion to the body.
  Answer answer(const HttpRequest& request) const;

  TimeNs last_step_ns(size_t variant) const;
  ServerStatus& status() const { return *status_; }

 private:
  enum class Action : uint8_t {
    kChat,
    kCompletions,
    kTokenize,
    kDetokenize,
    kModels,
    kModel,
    kHealth,
    kReady,
    kVersion,
    kMetrics,
    kQuote,
    kLedger
  };
  struct Route;
  static const Route* find_route(std::string_view path);
  Answer act(Action action, const HttpRequest& request) const;
  HttpResponse answer_get(Action action, const HttpRequest& request) const;
  Answer generate(Endpoint endpoint, const HttpRequest& request) const;
  HttpResponse quote(const HttpRequest& request) const;
  HttpResponse ledger() const;
  HttpResponse tokenize(const HttpRequest& request) const;
  HttpResponse detokenize(const HttpRequest& request) const;
  HttpResponse models() const;
  HttpResponse one_model(std::string_view name) const;
  std::string variant_json(size_t index) const;
  HttpResponse health(bool for_traffic) const;
  // How long the engine of a variant has had work without completing a step.
  TimeNs stuck_ns(size_t variant) const;
  MaybeError parse(Endpoint endpoint, const HttpRequest& request, ApiRequest& parsed) const;
  MaybeError check_model(const ApiRequest& request) const;

  const ServedModel model_;
  const Side side_;
  const ApiKeys keys_;
  const TimeNs stall_timeout_ns_;
  const int64_t created_s_;
  const std::vector<std::string> fingerprints_;  // of each variant
  ServerStatus* status_;
  Canary* canary_;
  mutable std::atomic<uint64_t> requests_{0};  // numbers the seeds of requests without one
};

}  // namespace puna::api
