// SPDX-License-Identifier: Apache-2.0
#include "api/api_request.h"

#include <fmt/format.h>

#include <boost/json.hpp>
#include <cstddef>
#include <new>

#include "api/request_fields.h"
#include "base/json_memory.h"

namespace puna::api {
namespace {

namespace json = boost::json;

constexpr size_t kMaxDepth = 16;  // the deepest known field has 4 levels

// Memory of one parsed tree, at most `capacity` bytes in all its allocations: a body of tiny values
// takes many times its own size as a tree. What is freed is not given back to the count, for
// Boost.JSON 1.81 frees the keys of duplicate members with another size than it allocated.
class CappedMemory final : public json::memory_resource {
 public:
  explicit CappedMemory(size_t capacity) : left_(capacity) {}

 private:
  void* do_allocate(size_t bytes, size_t alignment) override {
    CHECK_LE(alignment, alignof(std::max_align_t));
    if (bytes > left_) throw std::bad_alloc();
    left_ -= bytes;
    return ::operator new(bytes);
  }
  void do_deallocate(void* memory, size_t, size_t) override { ::operator delete(memory); }
  bool do_is_equal(const json::memory_resource& other) const noexcept override {
    return this == &other;
  }
  size_t left_;
};

MaybeError missing(std::string_view field) {
  return bad_field(field, "missing_required_parameter", fmt::format("`{}` is missing", field));
}

MaybeError check_required(const ApiRequest& request) {
  switch (request.endpoint) {
    case Endpoint::kChat:
      return request.messages ? MaybeError() : missing("messages");
    case Endpoint::kCompletions:
      return request.prompts ? MaybeError() : missing("prompt");
    case Endpoint::kDetokenize:
      return request.tokens ? MaybeError() : missing("tokens");
    case Endpoint::kTokenize:
      if (request.prompts && request.messages) {
        return bad_field("prompt", "invalid_value", "give `prompt` or `messages`, not both");
      }
      return request.prompts || request.messages ? MaybeError() : missing("prompt");
  }
  return {};
}

// What one field alone can't show.
MaybeError check_together(const ApiRequest& request) {
  if (request.top_logprobs.value_or(0) > 0 && !request.chat_logprobs) {
    return bad_field("top_logprobs", "invalid_value", "`top_logprobs` needs `logprobs`: true");
  }
  if (request.best_of && *request.best_of != request.choices()) {
    return bad_field(
        "best_of", "unsupported_parameter",
        fmt::format("`best_of` other than `n` is not supported: best_of is {}, n is {}",
                    *request.best_of, request.choices()));
  }
  if (request.echo && request.completion_logprobs) {
    return bad_field("logprobs", "unsupported_parameter",
                     "`echo` together with `logprobs` is not supported by this server");
  }
  if (!request.stream && (request.include_usage || request.continuous_usage_stats)) {
    return bad_field("stream_options", "invalid_value", "`stream_options` needs `stream`: true");
  }
  const std::optional<int64_t> limit = request.output_limit();
  if (limit && request.min_tokens.value_or(0) > *limit) {
    return bad_field("min_tokens", "invalid_value",
                     fmt::format("`min_tokens` must be at most `max_tokens` ({}), but is {}",
                                 *limit, *request.min_tokens));
  }
  if (request.prompts) {
    const size_t choices = request.prompts->size() * static_cast<size_t>(request.choices());
    if (choices > kMaxChoicesPerCall) {
      return bad_field(
          "n", "invalid_value",
          fmt::format("{} prompts times `n` {} make {} choices; at most {} are allowed",
                      request.prompts->size(), request.choices(), choices, kMaxChoicesPerCall));
    }
    if (request.endpoint == Endpoint::kTokenize && request.prompts->size() != 1) {
      return bad_field("prompt", "invalid_type", "`prompt` must be one string");
    }
  }
  return {};
}

MaybeError read_body(const json::value& body, const RequestLimits& limits, ApiRequest& request) {
  const json::object* object = body.if_object();
  if (object == nullptr) {
    return bad_field(
        "", "invalid_type",
        fmt::format("the body must be a JSON object, but is {}", json_kind_name(body)));
  }
  for (const Field& field : request_fields()) {
    if ((field.endpoints & static_cast<uint8_t>(request.endpoint)) == 0) continue;
    const json::value* value = object->if_contains(field.name);
    if (value == nullptr || value->is_null()) continue;
    if (auto error = read_field(field, *value, limits, request)) return error;
  }
  if (auto error = check_required(request)) return error;
  return check_together(request);
}

}  // namespace

int32_t ApiRequest::engine_top_logprobs() const {
  if (chat_logprobs) return static_cast<int32_t>(top_logprobs.value_or(0));
  return completion_logprobs ? static_cast<int32_t>(*completion_logprobs) : -1;
}

MaybeError parse_request(Endpoint endpoint, std::string_view body, const RequestLimits& limits,
                         ApiRequest& request) {
  request.endpoint = endpoint;
  try {
    CappedMemory memory(json_tree_limit(body.size()));
    boost::system::error_code ec;
    json::parse_options options;
    options.max_depth = kMaxDepth;
    const json::value value = json::parse(body, ec, &memory, options);
    if (ec) {
      return bad_field("", "invalid_json",
                       fmt::format("the body is no valid JSON: {}", ec.message()));
    }
    return read_body(value, limits, request);
  } catch (const std::bad_alloc&) {
    return ApiError{
        .status = 413,
        .message = fmt::format("the body ({} bytes) holds too many values", body.size()),
        .param = {},
        .code = "body_too_large"};
  }
}

}  // namespace puna::api
