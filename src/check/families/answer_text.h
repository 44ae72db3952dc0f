// SPDX-License-Identifier: Apache-2.0
// What a scorer reads in a model's answer.
#pragma once

#include <boost/json/value.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "check/families/family.h"

namespace puna::check {

// Without white space at both ends.
std::string_view trimmed(std::string_view text);
// Split at line feeds; a carriage return before one belongs to the line end.
std::vector<std::string_view> lines_of(std::string_view text);
// Split at spaces, tabs and line feeds.
std::vector<std::string_view> words_of(std::string_view text);

// The number that the answer ends on: after the last "Answer:" or "####", else the last one in it.
// Thousands' commas and a fraction of zeros are read over ("1,200.00" is 1200); any other fraction
// or more than 15 digits is no whole number.
std::optional<int64_t> final_number(std::string_view answer);

// The inside of the first ``` block, else the whole text, trimmed.
std::string_view code_of(std::string_view answer);
// The first JSON object in the answer, prose or a ``` block around it or not.
std::optional<boost::json::value> json_object_of(std::string_view answer);

// Right when the answer's final number is `expected`.
Score number_score(int64_t expected, std::string_view answer);
Score wrong(std::string why);

}  // namespace puna::check
