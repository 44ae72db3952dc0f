// SPDX-License-Identifier: Apache-2.0
// Which variant of the served model a request goes to: its family from header, body and words
// (route/task_family.h), the order of variants from their certificates (route/policy.h). Any
// thread.
//
//   Routed routed;
//   if (auto error = route_request(model, http.header("x-puna-task"), parsed, routed)) ...
//   model.engines()[routed.order.variants[0]]->submit(...)
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "api/api_request.h"
#include "api/http_message.h"
#include "api/server.h"
#include "route/policy.h"
#include "route/task_family.h"

namespace puna::api {

struct Routed {
  route::Classified found = {};
  route::Order order = route::only(0);  // of ServedModel::engines()
};

// A model with one variant goes there, and nothing is looked at. Errors: 400 for a header that
// names no family.
MaybeError route_request(const ServedModel& model, std::string_view task_header,
                         const ApiRequest& request, Routed& routed);

// What a request shows of its family. The signs point into `request`.
route::RequestSigns signs_of(std::optional<TaskFamily> header, const ApiRequest& request);
MaybeError read_task_header(std::string_view header, std::optional<TaskFamily>& family);

// "smol:q4" is the variant "q4" of the model "smol", by any of its names.
std::optional<size_t> variant_named(const ServedModel& model, std::string_view name);
std::string variant_name(const ServedModel& model, size_t index);

// x-puna-variant, x-puna-task and x-puna-task-confidence; none where there is one variant.
void append_route_headers(const ServedModel& model, const Routed& routed, size_t variant,
                          HttpHeaders& headers);

}  // namespace puna::api
