// SPDX-License-Identifier: Apache-2.0
// `puna route explain`: which variant a request would go to, and why; nothing is loaded but the
// files' tables and the certificates.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "api/json_text.h"
#include "api/routing.h"
#include "cli/commands.h"
#include "cli/opened_variants.h"
#include "plan/byte_size.h"
#include "plan/memory_plan.h"

namespace puna::cli {
namespace {

constexpr uintmax_t kMostBytes = 4 << 20;  // as the server takes by default
constexpr size_t kShownEvidence = 8;

Result<std::string> read_request(const std::string& path) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored)) {
    return Error(ErrorCode::kNotFound, "--request {}: no such file", path);
  }
  if (std::filesystem::file_size(path, ignored) > kMostBytes) {
    return Error(ErrorCode::kInvalidArgument, "--request {}: larger than {} bytes", path,
                 kMostBytes);
  }
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

// As a chat, or else as a completion; with what the server would not do noted, not refused.
api::MaybeError parse(const std::string& body, const api::RequestLimits& limits,
                      api::ApiRequest& request) {
  api::MaybeError error = api::parse_request(api::Endpoint::kChat, body, limits, request);
  if (!error || request.messages) return error;
  request = api::ApiRequest();
  return api::parse_request(api::Endpoint::kCompletions, body, limits, request);
}

std::string_view verdict_text(const route::Variant& variant, TaskFamily family) {
  if (variant.base) return "base";
  switch (variant.verdicts[index_of(family)]) {
    case route::Verdict::kUntested:
      return "untested";
    case route::Verdict::kPass:
      return "pass";
    case route::Verdict::kRefused:
      return "refuse";
    case route::Verdict::kInconclusive:
      return "inconclusive";
  }
  return "";
}

struct Explained {
  api::Routed routed;
  std::vector<route::Evidence> evidence;  // the strongest first
  std::string refusal;                    // what the server would say to the request, or empty
};

Result<Explained> explain(const RouteFlags& flags, const OpenedVariants& opened,
                          const api::ServedModel& model) {
  ASSIGN_OR_RETURN(const std::string body, read_request(flags.request));
  api::RequestLimits limits{.vocab_size = opened.tokenizer->vocab_size(),
                            .max_model_len = opened.sources.front().spec().max_position,
                            .only_look = true};
  const auto refuse = [&](const api::ApiError& error) {
    return Error(ErrorCode::kInvalidArgument, "--request {}: {}", flags.request, error.message);
  };
  api::ApiRequest request;
  if (auto error = parse(body, limits, request)) return refuse(*error);
  Explained explained;
  if (auto error = api::route_request(model, flags.task, request, explained.routed)) {
    return refuse(*error);
  }
  route::classify(api::signs_of(std::nullopt, request), &explained.evidence);
  std::stable_sort(explained.evidence.begin(), explained.evidence.end(),
                   [](const auto& a, const auto& b) { return a.weight > b.weight; });
  const bool known =
      std::find(model.names.begin(), model.names.end(), request.model) != model.names.end() ||
      api::variant_named(model, request.model) || request.model.empty();
  if (!known) explained.refusal = fmt::format("there is no model {}", request.model);
  limits.only_look = false;
  api::ApiRequest strict;
  if (auto error = parse(body, limits, strict)) explained.refusal = error->message;
  return explained;
}

std::string as_text(const Explained& explained, const OpenedVariants& opened,
                    const api::ServedModel& model) {
  const route::Classified& found = explained.routed.found;
  const route::Order& order = explained.routed.order;
  std::string out = fmt::format(
      "family: {} (confidence {:.2f}, from {}{})\n", task_family_name(found.family),
      found.confidence,
      found.source == route::Source::kText ? "the words" : route::source_name(found.source),
      found.confidence < route::kSureConfidence ? ", unsure" : "");
  const auto append = std::back_inserter(out);
  if (found.source == route::Source::kText) {
    for (size_t i = 0; i < std::min(kShownEvidence, explained.evidence.size()); ++i) {
      const route::Evidence& one = explained.evidence[i];
      fmt::format_to(append, "  {:<13} +{:.1f}  {}\n", task_family_name(one.family), one.weight,
                     one.what);
    }
  }
  fmt::format_to(append, "variants of {}:\n", model.names.front());
  for (size_t i = 0; i < model.variants.size(); ++i) {
    const route::Variant& variant = model.variants[i];
    fmt::format_to(append, "  {:<16} {:>10} a token  {} KV  {}: {}{}\n", variant.name,
                   plan::format_bytes(variant.cost), plan::kv_type_name(opened.flags[i].kv_type()),
                   task_family_name(found.family), verdict_text(variant, found.family),
                   !variant.base && variant.passes_all() ? ", passes all families" : "");
  }
  fmt::format_to(append, "goes to {}: {}\n", model.variants[order.variants[0]].name,
                 route::why_text(order.why));
  for (const uint8_t index : order.indexes().subspan(1)) {
    fmt::format_to(append, "when that is full: {}\n", model.variants[index].name);
  }
  if (!explained.refusal.empty()) {
    fmt::format_to(append, "the server would refuse it: {}\n", explained.refusal);
  }
  return out;
}

std::string as_json(const Explained& explained, const api::ServedModel& model) {
  const route::Classified& found = explained.routed.found;
  const route::Order& order = explained.routed.order;
  std::string out = fmt::format(
      R"({{"family":"{}","confidence":{:.4f},"source":"{}","variant":{},"why":{},"order":[)",
      task_family_name(found.family), found.confidence, route::source_name(found.source),
      api::json_string(model.variants[order.variants[0]].name),
      api::json_string(route::why_text(order.why)));
  const auto append = std::back_inserter(out);
  for (const uint8_t index : order.indexes()) {
    fmt::format_to(append, "{}{}", out.back() == '[' ? "" : ",",
                   api::json_string(model.variants[index].name));
  }
  out += R"(],"variants":[)";
  for (const route::Variant& variant : model.variants) {
    fmt::format_to(append, R"({}{{"name":{},"bytes_per_token":{},"verdict":"{}"}})",
                   out.back() == '[' ? "" : ",", api::json_string(variant.name), variant.cost,
                   verdict_text(variant, found.family));
  }
  out += R"(],"evidence":[)";
  for (const route::Evidence& one : explained.evidence) {
    fmt::format_to(append, R"({}{{"family":"{}","weight":{:.2f},"what":{}}})",
                   out.back() == '[' ? "" : ",", task_family_name(one.family), one.weight,
                   api::json_string(one.what));
  }
  fmt::format_to(append, R"(],"refusal":{}}})",
                 explained.refusal.empty() ? "null" : api::json_string(explained.refusal));
  return out + "\n";
}

}  // namespace

Result<int> route_explain(const RouteFlags& flags) {
  ASSIGN_OR_RETURN(const OpenedVariants opened, open_variants(flags.variants, flags.model));
  api::ServedModel model;
  model.names = {flags.variants.name};
  model.variants = opened.facts;
  ASSIGN_OR_RETURN(const Explained explained, explain(flags, opened, model));
  fmt::print("{}", flags.json ? as_json(explained, model) : as_text(explained, opened, model));
  return 0;
}

}  // namespace puna::cli
