// SPDX-License-Identifier: Apache-2.0
// The inside of the families: each draws a Draft and scores an answer against the Draft's
// reference. A draft shows every unique choice of its Draw in its prompt, 2^20 combinations in all.
#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <string>
#include <string_view>

#include "check/families/draw.h"
#include "check/families/family.h"

namespace puna::check {

struct Draft {
  int32_t cluster = 0;
  std::string prompt;
  boost::json::object reference;
  std::string oracle;
};

Draft draft_arithmetic(Draw& draw, int32_t difficulty);
Draft draft_algebra(Draw& draw, int32_t difficulty);
Draft draft_json_extract(Draw& draw, int32_t difficulty);
Draft draft_tool_call(Draw& draw, int32_t difficulty);
Draft draft_code(Draw& draw, int32_t difficulty);
Draft draft_retrieval(Draw& draw, int32_t difficulty);
Draft draft_format(Draw& draw, int32_t difficulty);
Draft draft_edit(Draw& draw, int32_t difficulty);
Draft draft_open_chat(Draw& draw, int32_t difficulty);

// {"answer": 72}
Score score_number(const boost::json::object& reference, std::string_view answer);
// {"value": {...}}: the answer's JSON object has exactly these members.
Score score_json(const boost::json::object& reference, std::string_view answer);
// {"entry", "cases": [{"arguments": [...], "expected": ...}]} or {"entry", "prompt", "test"}.
Score score_code(const boost::json::object& reference, std::string_view answer);
// {"codes": ["48213"]} or {"key": "red boat"}.
Score score_retrieval(const boost::json::object& reference, std::string_view answer);
// {"lines": 2, "words": 5, ...}: see format.cc.
Score score_format(const boost::json::object& reference, std::string_view answer);
// {"text": "..."}
Score score_edit(const boost::json::object& reference, std::string_view answer);

}  // namespace puna::check
