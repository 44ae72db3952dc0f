// SPDX-License-Identifier: Apache-2.0
// The table of everything that a request body may hold: name, endpoints, type, range, and where the
// value goes. A field that is not in it is ignored; one that Puna knows but does not do is refused
// by name unless it has a value that changes nothing.
#pragma once

#include <boost/json/value.hpp>
#include <limits>
#include <span>
#include <string_view>
#include <variant>

#include "api/api_request.h"

namespace puna::api {

struct Field;
using FieldReader = MaybeError (*)(const Field&, const boost::json::value&, const RequestLimits&,
                                   ApiRequest&);

// Values of a refused field that are the same as leaving it out, as JSON texts: "[]|false".
struct Refused {
  std::string_view neutral;
};

using Target = std::variant<float ApiRequest::*, std::optional<int64_t> ApiRequest::*,
                            bool ApiRequest::*, std::string ApiRequest::*, FieldReader, Refused>;

struct Field {
  std::string_view name;
  uint8_t endpoints;  // bits of Endpoint
  Target target;
  // Inclusive range of numbers; bytes of strings; entries of lists.
  double low = 0;
  double high = 0;
  bool low_open = false;  // `low` itself is out
};

std::span<const Field> request_fields();

// Checks `value` against `field` and stores it. Null was handled by the caller.
MaybeError read_field(const Field& field, const boost::json::value& value,
                      const RequestLimits& limits, ApiRequest& request);

// Shared by the readers of composed fields (request_values.cc).
std::string_view json_kind_name(const boost::json::value& value);
std::string show(const boost::json::value& value);  // shortened for messages
MaybeError wrong_type(std::string_view field, std::string_view wanted,
                      const boost::json::value& value);
MaybeError out_of_range(const Field& field, std::string_view name, std::string_view shown);
// An integer, also when written as 16.0. Empty: it is none, or does not fit.
std::optional<int64_t> as_integer(const boost::json::value& value);

// Readers of fields that are more than one number, flag or string.
MaybeError read_messages(const Field&, const boost::json::value&, const RequestLimits&,
                         ApiRequest&);
MaybeError read_prompt(const Field&, const boost::json::value&, const RequestLimits&, ApiRequest&);
MaybeError read_tokens(const Field&, const boost::json::value&, const RequestLimits&, ApiRequest&);
MaybeError read_stop(const Field&, const boost::json::value&, const RequestLimits&, ApiRequest&);
MaybeError read_stop_token_ids(const Field&, const boost::json::value&, const RequestLimits&,
                               ApiRequest&);
MaybeError read_logit_bias(const Field&, const boost::json::value&, const RequestLimits&,
                           ApiRequest&);
MaybeError read_stream_options(const Field&, const boost::json::value&, const RequestLimits&,
                               ApiRequest&);
MaybeError read_metadata(const Field&, const boost::json::value&, const RequestLimits&,
                         ApiRequest&);

}  // namespace puna::api
