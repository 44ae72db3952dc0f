// SPDX-License-Identifier: Apache-2.0
// Word problems: someone's things change in `steps` steps; other people's things distract.
#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <string>

#include "check/families/answer_text.h"
#include "check/families/generators.h"
#include "check/families/words.h"

namespace puna::check {
namespace {

// Each level is a range, so that items of one difficulty tell strong models from weak ones.
struct Level {
  std::array<size_t, 2> steps;
  std::array<int64_t, 3> limits;  // of the numbers in the text; one is drawn
  std::array<size_t, 2> distractors;
};
constexpr std::array<Level, kMaxDifficulty + 1> kLevels = {{{{3, 6}, {96, 400, 960}, {1, 2}},
                                                            {{4, 7}, {400, 960, 960}, {2, 2}},
                                                            {{5, 8}, {960, 960, 2400}, {2, 3}},
                                                            {{7, 10}, {960, 2400, 2400}, {3, 4}},
                                                            {{9, 12}, {960, 2400, 9600}, {4, 5}}}};

enum class Step : uint8_t { kBuy, kReceive, kGive, kLose, kBoxes, kDouble };
constexpr size_t kNumSteps = 6;

class Story {
 public:
  Story(Draw& draw, int64_t limit) : draw_(draw), limit_(limit), who_(draw.unique_pick(kNames)) {
    thing_ = draw.unique_pick(kThings);
    const size_t friend_place = draw.unique(kNames.size() - 1);  // any name but `who`
    friend_ = kNames[friend_place < place_of_who() ? friend_place : friend_place + 1];
    const auto low = static_cast<int64_t>(draw.unique(8));
    total_ = 4 + low + 8 * draw.between(0, limit / 8 - 1);
    text_ = fmt::format("{} and {} collect {}. {} has {}.", who_, friend_, thing_, who_, total_);
  }

  void add_step() {
    auto step = static_cast<Step>(draw_.below(kNumSteps));
    const bool takes = step == Step::kGive || step == Step::kLose;
    if (takes && total_ < 4) step = Step::kBuy;
    if (step == Step::kDouble && total_ > 4 * limit_) step = Step::kGive;
    cluster_ = (cluster_ * static_cast<int32_t>(kNumSteps) + static_cast<int32_t>(step)) % 36;
    tell(step);
  }

  void add_distractor() {
    const std::string_view thing = draw_.one_in(2) ? thing_ : draw_.pick(kThings);
    const int64_t count = draw_.between(2, limit_);
    text_ += fmt::format(" {} has {} {}.", friend_, count, thing);
  }

  Draft finish() {
    Draft draft;
    draft.cluster = cluster_;
    draft.prompt = fmt::format(
        "{} How many {} does {} have now? Work step by step and end with \"Answer:\" and the "
        "number.",
        text_, thing_, who_);
    draft.reference["answer"] = total_;
    draft.oracle = fmt::format("{}Answer: {}", work_, total_);
    return draft;
  }

 private:
  size_t place_of_who() const {
    return static_cast<size_t>(std::find(kNames.begin(), kNames.end(), who_) - kNames.begin());
  }
  void tell(Step step);
  void compute(char sign, int64_t operand) {
    const int64_t before = total_;
    if (sign == '+') total_ += operand;
    if (sign == '-') total_ -= operand;
    if (sign == '*') total_ *= operand;
    work_ += fmt::format("{} {} {} = {}\n", before, sign, operand, total_);
  }

  Draw& draw_;
  const int64_t limit_;
  std::string_view who_;
  std::string_view thing_;
  std::string_view friend_;
  int64_t total_ = 0;
  int32_t cluster_ = 0;
  std::string text_;
  std::string work_;
};

void Story::tell(Step step) {
  const int64_t amount = draw_.between(2, limit_);
  const int64_t part = draw_.between(1, std::max<int64_t>(1, total_ - 1));
  switch (step) {
    case Step::kBuy:
      text_ += fmt::format(" {} buys {} more.", who_, amount);
      return compute('+', amount);
    case Step::kReceive:
      text_ += fmt::format(" {} gives {} {} to {}.", friend_, amount, thing_, who_);
      return compute('+', amount);
    case Step::kGive:
      text_ += fmt::format(" {} gives {} to {}.", who_, part, friend_);
      return compute('-', part);
    case Step::kLose:
      text_ += fmt::format(" {} loses {}.", who_, part);
      return compute('-', part);
    case Step::kBoxes: {
      const int64_t boxes = draw_.between(2, 9);
      const int64_t each = draw_.between(2, std::max<int64_t>(9, limit_ / 8));
      text_ += fmt::format(" {} finds {} boxes with {} {} in each.", who_, boxes, each, thing_);
      work_ += fmt::format("{} * {} = {}\n", boxes, each, boxes * each);
      return compute('+', boxes * each);
    }
    case Step::kDouble:
      text_ += fmt::format(" Then {} doubles what is there.", who_);
      return compute('*', 2);
  }
}

}  // namespace

Draft draft_arithmetic(Draw& draw, int32_t difficulty) {
  const Level& level = kLevels[static_cast<size_t>(difficulty)];
  Story story(draw, draw.pick(level.limits));
  const size_t steps = draw.within(level.steps);
  size_t distractors = draw.within(level.distractors);
  for (size_t i = 0; i < steps; ++i) {
    story.add_step();
    if (distractors == 0) continue;
    story.add_distractor();
    --distractors;
  }
  return story.finish();
}

Score score_number(const boost::json::object& reference, std::string_view answer) {
  return number_score(reference.at("answer").as_int64(), answer);
}

}  // namespace puna::check
