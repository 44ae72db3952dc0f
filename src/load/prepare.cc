// SPDX-License-Identifier: Apache-2.0
#include "load/prepare.h"

#include <boost/json.hpp>
#include <optional>

#include "load/http_client.h"

namespace puna::load {
namespace {

namespace json = boost::json;

constexpr TimeNs kQuestionTimeoutNs = 30 * kNsPerSecond;
constexpr int64_t kProbeWords = 512;

Result<> find_model(Target& target) {
  const std::string request =
      http_request("GET", "/v1/models", target.url, target.key_headers(), "");
  auto reply = call_once(target.url, request, kQuestionTimeoutNs);
  if (!reply.ok()) {
    return std::move(reply).error().with_context(
        fmt::format("no server at {}", target.url.host_header()));
  }
  if (!target.model.empty()) return Ok{};
  json::error_code ec;
  const json::value models = json::parse(reply->body, ec);
  const json::value* id = ec ? nullptr : models.find_pointer("/data/0/id", ec);
  if (reply->head.status != 200 || id == nullptr || !id->is_string()) {
    return Error(ErrorCode::kInvalidArgument,
                 "{}/v1/models names no model (status {}): give --model, and --api-key where the "
                 "server wants one",
                 target.url.host_header(), reply->head.status);
  }
  target.model = std::string(id->as_string());
  return Ok{};
}

// How many tokens the server makes of it; none when it does not say.
std::optional<double> count_tokens(const Target& target, const json::object& body) {
  const std::string request =
      http_request("POST", "/tokenize", target.url, target.key_headers(), json::serialize(body));
  const auto reply = call_once(target.url, request, kQuestionTimeoutNs);
  if (!reply.ok() || reply->head.status != 200) return std::nullopt;
  json::error_code ec;
  const json::value value = json::parse(reply->body, ec);
  if (ec || !value.is_object()) return std::nullopt;
  if (const json::value* count = value.get_object().if_contains("count")) {
    if (count->is_int64()) return static_cast<double>(count->get_int64());
  }
  const json::value* tokens = value.get_object().if_contains("tokens");
  if (tokens == nullptr || !tokens->is_array()) return std::nullopt;
  return static_cast<double>(tokens->get_array().size());
}

}  // namespace

Result<> prepare(Target& target) {
  RETURN_IF_ERROR(find_model(target));
  const std::string probe = words(target.seed, kProbeWords);
  // vLLM's and Puna's field, and llama.cpp's.
  const auto plain =
      count_tokens(target, {{"model", target.model}, {"prompt", probe}, {"content", probe}});
  if (!plain || *plain < 1) return Ok{};
  target.tokens_per_word = *plain / kProbeWords;
  if (target.endpoint != Endpoint::kChat) return Ok{};
  const json::array messages = {{{"role", "user"}, {"content", probe}}};
  const auto chat = count_tokens(target, {{"model", target.model}, {"messages", messages}});
  if (chat && *chat > *plain) target.template_tokens = static_cast<int32_t>(*chat - *plain);
  return Ok{};
}

}  // namespace puna::load
