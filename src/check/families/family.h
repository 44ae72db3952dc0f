// SPDX-License-Identifier: Apache-2.0
// Task families: seeded, versioned questions with exact scorers. An item is a pure function of its
// request (family, seed, index, difficulty) and of the family's version, on every platform. Every
// item carries an answer of its own oracle, which scores 1.
//
//   const Item item = make_item({Family::kArithmetic, /*seed=*/7, /*index=*/0});
//   const Score score = puna::check::score(item, answer_of_the_model);
//
// Training and checking never share an item: a seed with its top bit set (kTrainingSeedBit) draws
// from prompts whose hash is in the training part (15 of 16), every other seed from the rest.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/task_family.h"

namespace puna::check {

using Family = TaskFamily;
inline constexpr int kNumFamilies = static_cast<int>(kNumTaskFamilies);
inline constexpr int kMaxDifficulty = 4;
inline constexpr uint64_t kTrainingSeedBit = uint64_t{1} << 63U;

constexpr std::string_view name(Family family) { return task_family_name(family); }
constexpr std::optional<Family> family_named(std::string_view name) {
  return task_family_named(name);
}
// Rises when the same request gives another item or the same answer another score.
int version(Family family);

struct Message {
  std::string role;  // "system" or "user"
  std::string content;
};

struct Item {
  Family family = Family::kArithmetic;
  uint64_t seed = 0;
  int32_t index = 0;
  int32_t difficulty = 0;
  int32_t cluster = 0;  // the template that made it: items of one template err together
  std::vector<Message> messages;
  std::string reference;   // what the scorer compares with, JSON
  std::string oracle;      // an answer that scores 1 (open_chat: a plausible one)
  int32_t max_tokens = 0;  // room for the oracle in any byte-level vocabulary
};

struct ItemRequest {
  Family family = Family::kArithmetic;
  uint64_t seed = 0;
  int32_t index = 0;       // from 0; the first 2^20 items of a seed are all different
  int32_t difficulty = 1;  // 0 (easy, for tiny models) to kMaxDifficulty
};

Item make_item(const ItemRequest& request);

struct Score {
  bool correct = false;
  std::string why;  // of a wrong answer; empty for a right one
};

// kCode runs the answer: any thread may call this, one subprocess per call, a few seconds at most.
// kOpenChat is never correct.
Score score(const Item& item, std::string_view answer);

// Whether this machine can score the family. An error's message says why not ("not certified: no
// python3"): such a family is left out of a check, it does not fail it. Cheap after the first call.
Result<> can_score(Family family);

// A user's own items, one JSON object per line. An error names the file, the line and the field.
// GSM8K: {"question", "answer": "... #### 72"}, scored as kArithmetic.
Result<std::vector<Item>> read_gsm8k(const std::string& path);
// HumanEval: {"task_id", "prompt", "entry_point", "canonical_solution", "test"}, scored as kCode.
Result<std::vector<Item>> read_human_eval(const std::string& path);

}  // namespace puna::check
