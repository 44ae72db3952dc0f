// SPDX-License-Identifier: Apache-2.0
// Small computations as a row of steps on a number, a list or a text: in words, in Python, and
// evaluated here.
#pragma once

#include <boost/json/value.hpp>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "check/families/draw.h"

namespace puna::check {

enum class CodeInput : uint8_t { kNumber, kList, kText };

struct CodeStep {
  size_t kind = 0;      // place in the table of its input
  int64_t number = 0;   // the step's constant, where it has one
  std::string letters;  // likewise
};

struct CodePlan {
  CodeInput kind = CodeInput::kNumber;
  std::vector<CodeStep> steps;
  int32_t cluster = 0;  // the input and the last step
  std::string input;    // "a list of integers"
  std::string words;    // "add 7; multiply by 3"
  std::string python;   // the function's lines, each "    x = ...\n"
};

CodePlan draw_code_plan(Draw& draw, size_t steps);
// The shortest argument (0, [], "") or a random one.
boost::json::value draw_code_argument(Draw& draw, const CodePlan& plan, bool is_least);
boost::json::value evaluate(const CodePlan& plan, const boost::json::value& argument);

}  // namespace puna::check
