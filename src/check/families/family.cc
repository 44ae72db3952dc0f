// SPDX-License-Identifier: Apache-2.0
#include "check/families/family.h"

#include <array>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <utility>

#include "base/check.h"
#include "base/hash.h"
#include "check/families/answer_text.h"
#include "check/families/draw.h"
#include "check/families/generators.h"
#include "check/families/sandbox.h"

namespace puna::check {
namespace {

using Scorer = Score (*)(const boost::json::object& reference, std::string_view answer);

Score score_open_chat(const boost::json::object& /*reference*/, std::string_view /*answer*/) {
  return wrong("open_chat has no right answer: compare it by divergence");
}

struct Kind {
  int version;
  Draft (*draft)(Draw& draw, int32_t difficulty);
  Scorer score;
};

// In the order of Family.
constexpr std::array<Kind, kNumFamilies> kKinds = {{
    {1, draft_arithmetic, score_number},
    {1, draft_algebra, score_number},
    {1, draft_json_extract, score_json},
    {1, draft_tool_call, score_json},
    {1, draft_code, score_code},
    {1, draft_retrieval, score_retrieval},
    {1, draft_format, score_format},
    {1, draft_edit, score_edit},
    {1, draft_open_chat, score_open_chat},
}};

const Kind& kind_of(Family family) { return kKinds[static_cast<size_t>(family)]; }

// An answer in the oracle's words never needs more tokens than bytes; the rest is for preambles.
constexpr size_t kSpareTokens = 32;
constexpr int32_t kMaxAttempts = 10000;

// One prompt in 16 is for checking, whatever its seed; the others are for training.
bool is_for_training(std::string_view prompt) { return mixed(fnv1a(prompt)) % 16 != 0; }

}  // namespace

int version(Family family) { return kind_of(family).version; }

Item make_item(const ItemRequest& request) {
  CHECK_GE(request.index, 0);
  CHECK(request.difficulty >= 0 && request.difficulty <= kMaxDifficulty);
  const bool training = (request.seed & kTrainingSeedBit) != 0;
  for (int32_t attempt = 0; attempt < kMaxAttempts; ++attempt) {
    Draw draw(request, attempt);
    Draft draft = kind_of(request.family).draft(draw, request.difficulty);
    CHECK(draw.place_is_spelt());
    if (is_for_training(draft.prompt) != training) continue;
    Item item;
    item.family = request.family;
    item.seed = request.seed;
    item.index = request.index;
    item.difficulty = request.difficulty;
    item.cluster = draft.cluster;
    item.messages.push_back({"user", std::move(draft.prompt)});
    item.reference = boost::json::serialize(draft.reference);
    item.oracle = std::move(draft.oracle);
    item.max_tokens = static_cast<int32_t>(item.oracle.size() + kSpareTokens);
    return item;
  }
  // A generator with so few prompts left after its unique choices is a bug of ours.
  CHECK(false);
}

Score score(const Item& item, std::string_view answer) {
  boost::json::error_code error;
  const boost::json::value reference = boost::json::parse(item.reference, error);
  CHECK(!error && reference.is_object());
  return kind_of(item.family).score(reference.get_object(), answer);
}

Result<> can_score(Family family) {
  if (family != Family::kCode) return Ok{};
  return sandbox_works();
}

}  // namespace puna::check
