// SPDX-License-Identifier: Apache-2.0
// Items and answers as JSON Lines, for programs outside Puna: a trainer reads items, and has its
// answers scored.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "check/families/family.h"

namespace puna::check {

// One line without its line feed: family, version, seed, index, difficulty, cluster, messages,
// reference, oracle, max_tokens.
std::string item_line(const Item& item);

struct FamilyScore {
  Family family = Family::kArithmetic;
  int32_t difficulty = 0;
  int64_t items = 0;
  int64_t correct = 0;
  std::string first_fault;  // why the first wrong answer is wrong
};

// A file with a line {"family", "seed", "index", "difficulty", "answer"} per answer. Rows in the
// order in which family and difficulty first come up. Errors name the file and the line.
Result<std::vector<FamilyScore>> score_answers(const std::string& path);

}  // namespace puna::check
