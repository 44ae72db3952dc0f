// SPDX-License-Identifier: Apache-2.0
// What would happen to a request, without running it: /v1/quote, and the refusal of a body that
// nobody has parsed yet. Any thread.
#pragma once

#include <memory>

#include "api/api_request.h"
#include "api/http_message.h"
#include "api/request_terms.h"
#include "api/routing.h"
#include "api/server.h"

namespace puna::api {

// Of several prompts or choices, the first; but a key's token rate must hold them all. Of the
// variant that the request would go to.
HttpResponse quote_response(const ServedModel& model, const ApiRequest& request,
                            const RequestTerms& terms, const Routed& routed);

// Empty when the smallest request of that class would be taken now, by any variant. Else why not,
// for a body of so many bytes.
std::unique_ptr<engine::Refusal> refusal_of_any(const ServedModel& model,
                                                engine::RequestClass request_class, int32_t tenant,
                                                size_t body_bytes);

// Output tokens that a request without max_tokens counts as.
int32_t default_output_tokens(const ServedModel& model, const RequestTerms& terms);

}  // namespace puna::api
