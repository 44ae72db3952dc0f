// SPDX-License-Identifier: Apache-2.0
#include "api/service.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>

#include "api/json_text.h"
#include "api/metrics_text.h"
#include "api/quote.h"

namespace puna::api {
namespace {

constexpr std::string_view kModelPrefix = "/v1/models/";

std::string make_fingerprint(const ServedModel& model, const std::string& name) {
  uint64_t hash = mix_seed(static_cast<uint64_t>(model.tokenizer->vocab_size()));
  for (const char c : model.build + "/" + name) {
    hash = mix_seed(hash ^ static_cast<uint8_t>(c));
  }
  return fmt::format("fp_{:016x}", hash);
}

// Which build, model, variant and vocabulary answered: a changed fingerprint explains a changed
// answer.
std::vector<std::string> make_fingerprints(const ServedModel& model) {
  if (model.variants.empty()) return {make_fingerprint(model, model.names.front())};
  std::vector<std::string> fingerprints;
  for (size_t i = 0; i < model.variants.size(); ++i) {
    fingerprints.push_back(make_fingerprint(model, variant_name(model, i)));
  }
  return fingerprints;
}

HttpResponse json_response(std::string body) {
  HttpResponse response;
  response.body = std::move(body);
  return response;
}

ApiError no_such_model(std::string_view name) {
  return {.status = 404,
          .message = fmt::format("The model `{}` does not exist; see /v1/models", name),
          .param = "model",
          .code = "model_not_found"};
}

std::string_view phase_name(engine::StepPhase phase) {
  switch (phase) {
    case engine::StepPhase::kIdle:
      return "idle";
    case engine::StepPhase::kPlan:
      return "plan";
    case engine::StepPhase::kRun:
      return "run";
    case engine::StepPhase::kPublish:
      return "publish";
  }
  return "";
}

}  // namespace

struct Service::Route {
  std::string_view path;
  Action action;
  bool post;
  bool open;   // needs no key
  bool admin;  // also on the admin listener
};

const Service::Route* Service::find_route(std::string_view path) {
  static constexpr Route kRoutes[] = {
      {"/v1/chat/completions", Action::kChat, true, false, false},
      {"/v1/completions", Action::kCompletions, true, false, false},
      {"/tokenize", Action::kTokenize, true, false, false},
      {"/detokenize", Action::kDetokenize, true, false, false},
      {"/v1/models", Action::kModels, false, false, false},
      {"/health", Action::kHealth, false, true, true},
      {"/ping", Action::kHealth, false, true, true},
      {"/ready", Action::kReady, false, true, true},
      {"/version", Action::kVersion, false, true, true},
      {"/metrics", Action::kMetrics, false, false, true},
      {"/v1/ledger", Action::kLedger, false, false, true},
      {"/v1/quote", Action::kQuote, true, false, false},
  };
  static constexpr Route kModelRoute = {kModelPrefix, Action::kModel, false, false, false};
  for (const Route& route : kRoutes) {
    if (route.path == path) return &route;
  }
  return path.starts_with(kModelPrefix) ? &kModelRoute : nullptr;
}

Service::Service(const ServedModel& model, const ServerConfig& config, ServerStatus& status,
                 Side side, Canary* canary)
    : model_(model),
      side_(side),
      keys_(config.api_keys),
      stall_timeout_ns_(config.stall_timeout_ms * kNsPerMs),
      created_s_(static_cast<int64_t>(std::time(nullptr))),
      fingerprints_(make_fingerprints(model)),
      status_(&status),
      canary_(canary) {}

std::optional<HttpResponse> Service::refuse_head(const HttpRequest& request) const {
  const Route* route = find_route(request.path);
  if (side_ == Side::kAdmin && route != nullptr && !route->admin) route = nullptr;
  // Deny by default: without a key nobody learns which paths exist.
  const bool open = side_ == Side::kAdmin || (route != nullptr && route->open);
  if (!open && keys_.caller(request.header("authorization")) == nullptr) {
    return error_response({.status = 401,
                           .message = request.header("authorization").empty()
                                          ? "You didn't provide an API key. Send it as "
                                            "\"Authorization: Bearer KEY\"."
                                          : "Incorrect API key provided.",
                           .param = {},
                           .code = "invalid_api_key"});
  }
  if (route == nullptr) {
    return error_response(
        {.status = 404,
         .message = fmt::format("Unknown path: {} {}", request.method, request.path),
         .param = {},
         .code = "unknown_url"});
  }
  const bool fits =
      route->post ? request.method == "POST" : request.method == "GET" || request.method == "HEAD";
  if (!fits) {
    HttpResponse response =
        error_response({.status = 405,
                        .message = fmt::format("{} takes {}, not {}", route->path,
                                               route->post ? "POST" : "GET", request.method),
                        .param = {},
                        .code = "method_not_allowed"});
    response.headers.emplace_back("Allow", route->post ? "POST" : "GET, HEAD");
    return response;
  }
  if (route->post && (status_->draining.load() || model_.engine->draining())) {
    return error_response({.status = 503,
                           .message = "The server is shutting down and takes no new requests.",
                           .param = {},
                           .code = "server_draining",
                           .retry_after_s = 1.0});
  }
  return std::nullopt;
}

Answer Service::answer(const HttpRequest& request) const {
  const Route* route = find_route(request.path);
  CHECK(route != nullptr);
  switch (route->action) {
    case Action::kChat:
      return generate(Endpoint::kChat, request);
    case Action::kCompletions:
      return generate(Endpoint::kCompletions, request);
    case Action::kQuote:
      return {quote(request), nullptr};
    case Action::kTokenize:
      return {tokenize(request), nullptr};
    case Action::kDetokenize:
      return {detokenize(request), nullptr};
    default:
      return {answer_get(route->action, request), nullptr};
  }
}

HttpResponse Service::answer_get(Action action, const HttpRequest& request) const {
  switch (action) {
    case Action::kModels:
      return models();
    case Action::kModel:
      return one_model(std::string_view(request.path).substr(kModelPrefix.size()));
    case Action::kHealth:
      return health(/*for_traffic=*/false);
    case Action::kReady:
      return health(/*for_traffic=*/true);
    case Action::kLedger:
      return ledger();
    case Action::kVersion:
      return json_response(fmt::format(R"({{"version":{}}})", json_string(model_.build)));
    default:
      break;
  }
  HttpResponse response;
  response.content_type = "text/plain; version=0.0.4; charset=utf-8";
  append_metrics(response.body, model_, *status_);
  return response;
}

MaybeError Service::parse(Endpoint endpoint, const HttpRequest& request, ApiRequest& parsed) const {
  const RequestLimits limits{.vocab_size = model_.engine->limits().vocab_size,
                             .max_model_len = model_.max_model_len};
  if (auto error = parse_request(endpoint, request.body, limits, parsed)) return error;
  return check_model(parsed);
}

MaybeError Service::check_model(const ApiRequest& request) const {
  if (request.model.empty()) return {};
  const auto& names = model_.names;
  if (std::find(names.begin(), names.end(), request.model) != names.end()) return {};
  if (variant_named(model_, request.model)) return {};
  return no_such_model(request.model);
}

Answer Service::generate(Endpoint endpoint, const HttpRequest& request) const {
  const TimeNs now_ns = SteadyClock().now_ns();
  ApiRequest parsed;
  if (auto error = parse(endpoint, request, parsed)) return {error_response(*error), nullptr};
  const uint64_t number = requests_.fetch_add(1, std::memory_order_relaxed);
  Generation::Options options{.id = fmt::format("{}", number),
                              .fingerprints = fingerprints_,
                              .drawn_seed = mix_seed(model_.default_seed ^ mix_seed(number)),
                              .status = status_};
  const Caller* caller = keys_.caller(request.header("authorization"));
  CHECK(caller != nullptr);
  if (auto error = read_terms(request, parsed, *caller, now_ns, options.terms)) {
    return {error_response(*error), nullptr};
  }
  if (auto error = route_request(model_, request.header("x-puna-task"), parsed, options.routed)) {
    return {error_response(*error), nullptr};
  }
  options.default_output_tokens = default_output_tokens(model_, options.terms);
  std::vector<TokenPrompt> prompts;
  if (auto error = build_prompts(model_, parsed, prompts)) return {error_response(*error), nullptr};
  return {{}, std::make_unique<Generation>(model_, std::move(parsed), std::move(prompts), options)};
}

std::optional<HttpResponse> Service::refuse_early(const HttpRequest& request) const {
  const Route* route = find_route(request.path);
  if (route == nullptr || (route->action != Action::kChat && route->action != Action::kCompletions))
    return std::nullopt;
  const Caller* caller = keys_.caller(request.header("authorization"));
  if (caller == nullptr) return std::nullopt;
  const auto request_class = class_of_unparsed(request, *caller);
  if (!request_class) return std::nullopt;
  const std::unique_ptr<engine::Refusal> refusal =
      refusal_of_any(model_, *request_class, caller->tenant, request.body.size());
  if (!refusal) return std::nullopt;
  status_->refusals[static_cast<size_t>(*request_class)][static_cast<size_t>(refusal->reason)]
      .add();
  status_->early_refusals.add();
  return error_response(from_refusal(*refusal));
}

HttpResponse Service::quote(const HttpRequest& request) const {
  const TimeNs now_ns = SteadyClock().now_ns();
  ApiRequest parsed;
  MaybeError error = parse(Endpoint::kChat, request, parsed);
  if (error && !parsed.messages) {  // then it is a completion's body
    parsed = ApiRequest();
    error = parse(Endpoint::kCompletions, request, parsed);
  }
  if (error) return error_response(*error);
  const Caller* caller = keys_.caller(request.header("authorization"));
  CHECK(caller != nullptr);
  RequestTerms terms;
  error = read_terms(request, parsed, *caller, now_ns, terms);
  if (error) return error_response(*error);
  Routed routed;
  error = route_request(model_, request.header("x-puna-task"), parsed, routed);
  if (error) return error_response(*error);
  return quote_response(model_, parsed, terms, routed);
}

HttpResponse Service::ledger() const {
  if (model_.ledger) return json_response(model_.ledger(status_->host_use()));
  return error_response({.status = 404,
                         .message = "this server was started without a memory plan",
                         .param = {},
                         .code = "no_ledger"});
}

HttpResponse Service::tokenize(const HttpRequest& request) const {
  ApiRequest parsed;
  if (auto error = parse(Endpoint::kTokenize, request, parsed)) return error_response(*error);
  std::vector<TokenPrompt> prompts;
  if (auto error = build_prompts(model_, parsed, prompts)) return error_response(*error);
  const std::vector<TokenId>& ids = prompts.front().ids;
  return json_response(fmt::format(R"({{"count":{},"max_model_len":{},"tokens":[{}]}})", ids.size(),
                                   model_.max_model_len, fmt::join(ids, ",")));
}

HttpResponse Service::detokenize(const HttpRequest& request) const {
  ApiRequest parsed;
  if (auto error = parse(Endpoint::kDetokenize, request, parsed)) return error_response(*error);
  const std::string text = model_.tokenizer->decode(*parsed.tokens, /*skip_special=*/false);
  return json_response(fmt::format(R"({{"prompt":{}}})", json_string(text)));
}

HttpResponse Service::models() const {
  std::string body = R"({"object":"list","data":[)";
  for (const std::string& name : model_.names) {
    if (body.back() == '}') body += ',';
    body += one_model(name).body;
  }
  for (size_t i = 0; i < model_.variants.size(); ++i) {
    body += ',';
    body += variant_json(i);
  }
  return json_response(body + "]}");
}

// What a variant is certified for; of the base, for it is what others are compared with, all.
std::string Service::variant_json(size_t index) const {
  const route::Variant& variant = model_.variants[index];
  std::string families;
  for (size_t i = 0; i < kNumTaskFamilies; ++i) {
    if (!variant.passes(static_cast<TaskFamily>(i))) continue;
    families += fmt::format(R"({}"{}")", families.empty() ? "" : ",", kTaskFamilyNames[i]);
  }
  return fmt::format(
      R"({{"id":{},"object":"model","created":{},"owned_by":"puna","root":{},"parent":{},)"
      R"("max_model_len":{},"variant":{{"name":{},"base":{},"certified":[{}]}}}})",
      json_string(variant_name(model_, index)), created_s_, json_string(model_.names.front()),
      json_string(model_.names.front()), model_.max_model_len, json_string(variant.name),
      variant.base, families);
}

HttpResponse Service::one_model(std::string_view name) const {
  const auto& names = model_.names;
  if (const auto variant = variant_named(model_, name)) {
    return json_response(variant_json(*variant));
  }
  if (std::find(names.begin(), names.end(), name) == names.end()) {
    return error_response(no_such_model(name));
  }
  return json_response(fmt::format(
      R"({{"id":{},"object":"model","created":{},"owned_by":"puna","root":{},"max_model_len":{}}})",
      json_string(name), created_s_, json_string(names.front()), model_.max_model_len));
}

TimeNs Service::last_step_ns(size_t variant) const {
  return model_.engines()[variant]->stats().last_step_ns.load();
}

TimeNs Service::stuck_ns(size_t variant) const {
  const engine::EngineStats& stats = model_.engines()[variant]->stats();
  const EngineWatch& watch = status_->engines[variant];
  const TimeNs last_step = last_step_ns(variant);
  const TimeNs pending_since = watch.pending_since.load();
  const bool working = stats.requests_running.value() + stats.requests_waiting.value() > 0;
  const bool pending = watch.unanswered.load() > 0 && pending_since > last_step;
  if (!working && !pending) return 0;
  return SteadyClock().now_ns() - std::max(last_step, pending_since);
}

HttpResponse Service::health(bool for_traffic) const {
  if (for_traffic && canary_ != nullptr && !status_->draining.load()) {
    canary_->look(SteadyClock().now_ns());
  }
  TimeNs age = 0;
  engine::StepPhase phase = model_.engine->stats().phase.load();
  for (size_t i = 0; i < model_.engines().size(); ++i) {  // the one that is stuck longest
    const TimeNs stuck = stuck_ns(i);
    if (stuck <= age) continue;
    age = stuck;
    phase = model_.engines()[i]->stats().phase.load();
  }
  std::string_view state = "ok";
  if (age > stall_timeout_ns_) {
    state = "stalled";  // probes must see an engine that is stuck, also the one that restarts us
  } else if (for_traffic && status_->draining.load()) {
    state = "draining";
  } else if (for_traffic && !status_->ready.load()) {
    state = "starting";
  }
  HttpResponse response =
      json_response(fmt::format(R"({{"status":{},"stuck_ms":{},"phase":"{}"}})", json_string(state),
                                age / kNsPerMs, phase_name(phase)));
  if (state != "ok") response.status = 503;
  return response;
}

}  // namespace puna::api
