// SPDX-License-Identifier: Apache-2.0
#include "api/routing.h"

#include <fmt/format.h>

namespace puna::api {
namespace {

// Several prompts of one call go to one variant: if they differ in family, it is unknown.
route::Classified classify_all(const ApiRequest& request, std::optional<TaskFamily> header) {
  route::RequestSigns signs = signs_of(header, request);
  route::Classified found = route::classify(signs);
  if (found.source != route::Source::kText || !request.prompts) return found;
  for (size_t i = 1; i < request.prompts->size(); ++i) {
    signs.user = (*request.prompts)[i].text;
    const route::Classified other = route::classify(signs);
    if (other.family != found.family) found.confidence = 0;
    found.confidence = std::min(found.confidence, other.confidence);
  }
  return found;
}

}  // namespace

MaybeError read_task_header(std::string_view header, std::optional<TaskFamily>& family) {
  if (header.empty()) return {};
  family = task_family_named(header);
  if (family) return {};
  return ApiError{.status = 400,
                  .message = fmt::format("x-puna-task: \"{}\" is none of {}", header,
                                         fmt::join(kTaskFamilyNames, ", ")),
                  .param = {},
                  .code = "invalid_value"};
}

route::RequestSigns signs_of(std::optional<TaskFamily> header, const ApiRequest& request) {
  route::RequestSigns signs{.header = header,
                            .metadata = task_family_named(request.metadata_task),
                            .tools = request.has_tools,
                            .response_format = request.has_response_format};
  if (request.messages) {
    for (const model::ChatMessage& message : *request.messages) {
      if (message.role == "system" && signs.system.empty()) signs.system = message.content;
      if (message.role == "user") signs.user = message.content;
    }
  } else if (request.prompts && !request.prompts->empty()) {
    signs.user = request.prompts->front().text;
  }
  return signs;
}

MaybeError route_request(const ServedModel& model, std::string_view task_header,
                         const ApiRequest& request, Routed& routed) {
  if (model.variants.empty()) return {};
  std::optional<TaskFamily> header;
  if (auto error = read_task_header(task_header, header)) return error;
  routed.found = classify_all(request, header);
  const std::optional<size_t> named = variant_named(model, request.model);
  routed.order = named ? route::only(*named) : route::order_for(model.variants, routed.found);
  return {};
}

std::optional<size_t> variant_named(const ServedModel& model, std::string_view name) {
  const size_t colon = name.rfind(':');
  if (colon == std::string_view::npos) return std::nullopt;
  const std::string_view model_name = name.substr(0, colon);
  bool known = false;
  for (const std::string& one : model.names) known = known || one == model_name;
  for (size_t i = 0; known && i < model.variants.size(); ++i) {
    if (model.variants[i].name == name.substr(colon + 1)) return i;
  }
  return std::nullopt;
}

std::string variant_name(const ServedModel& model, size_t index) {
  return fmt::format("{}:{}", model.names.front(), model.variants[index].name);
}

void append_route_headers(const ServedModel& model, const Routed& routed, size_t variant,
                          HttpHeaders& headers) {
  if (model.variants.empty()) return;
  headers.emplace_back("x-puna-variant", model.variants[variant].name);
  headers.emplace_back("x-puna-task", std::string(task_family_name(routed.found.family)));
  headers.emplace_back("x-puna-task-confidence", fmt::format("{:.2f}", routed.found.confidence));
}

}  // namespace puna::api
