// SPDX-License-Identifier: Apache-2.0
// Phrases of up to three words that speak for a family, with the weight of each in the log odds.
// Chosen by hand and tuned on tests/golden/route/development.tsv alone.
#pragma once

#include <span>
#include <string_view>

#include "base/task_family.h"

namespace puna::route {

inline constexpr size_t kMaxPhraseWords = 3;

struct TaskPhrase {
  std::string_view words;  // lower case, single spaces
  TaskFamily family;
  float weight;
};

// All entries of exactly these words; a phrase may speak for several families.
std::span<const TaskPhrase> phrases_of(std::string_view words);
size_t phrase_index(const TaskPhrase& phrase);  // below num_phrases()
size_t num_phrases();

}  // namespace puna::route
