// SPDX-License-Identifier: Apache-2.0
// Questions without a right answer: they give a divergence something to be measured on.
#include <fmt/core.h>

#include <array>
#include <string>

#include "check/families/generators.h"
#include "check/families/words.h"

namespace puna::check {
namespace {

constexpr std::array<std::string_view, 5> kAsks = {
    "Tell {} a short story about a {} {} and a {}.", "Explain to {} how a {} {} differs from a {}.",
    "Give {} advice on a {} {} that stands beside a {}.",
    "Describe for {} a {} {} as seen from a {}.",
    "Write to {} why a {} {} matters more than a {}."};

}  // namespace

Draft draft_open_chat(Draw& draw, int32_t difficulty) {
  const std::string_view who = draw.unique_pick(kNames);
  const std::string_view adjective = draw.unique_pick(kAdjectives);
  const std::string_view noun = draw.unique_pick(kNouns);
  const std::string_view other = draw.unique_pick(kNouns);
  Draft draft;
  const size_t ask = draw.below(kAsks.size());
  const int32_t sentences = 2 + 2 * difficulty;
  draft.cluster = static_cast<int32_t>(ask);
  const std::string_view city = draw.pick(kCities);
  draft.prompt =
      fmt::format("I am a {} in {}. {} Use about {} sentences.", draw.pick(kJobs), city,
                  fmt::format(fmt::runtime(kAsks[ask]), who, adjective, noun, other), sentences);
  draft.oracle = fmt::format("The {} {} {} the {}.", adjective, noun, draw.pick(kVerbs), other);
  for (int32_t i = 1; i < sentences; ++i) {
    const std::string_view object = draw.one_in(2) ? other : draw.pick(kNouns);
    const std::string_view verb = draw.pick(kVerbs);
    const std::string_view subject = draw.one_in(2) ? noun : draw.pick(kNouns);
    draft.oracle +=
        fmt::format(" Then the {} {} {} the {}.", draw.pick(kAdjectives), subject, verb, object);
  }
  return draft;
}

}  // namespace puna::check
