// SPDX-License-Identifier: Apache-2.0
// Equations in one and two unknowns, remainders and units, with whole-number answers.
#include <fmt/core.h>

#include <array>
#include <string>

#include "check/families/answer_text.h"
#include "check/families/generators.h"
#include "check/families/words.h"

namespace puna::check {
namespace {

constexpr std::array<std::string_view, 16> kLetters = {"a", "b", "c", "d", "f", "g", "h", "k",
                                                       "m", "n", "p", "q", "r", "s", "t", "w"};

// The largest coefficient and the largest solution.
struct Size {
  int64_t coefficient;
  int64_t solution;
};
constexpr std::array<Size, 6> kSizes = {
    {{5, 12}, {9, 30}, {19, 99}, {60, 400}, {200, 1500}, {900, 9000}}};
// The sizes that a difficulty draws from.
constexpr std::array<std::array<size_t, 2>, kMaxDifficulty + 1> kLevels = {
    {{0, 2}, {1, 3}, {2, 4}, {3, 5}, {5, 5}}};

struct Problem {
  std::string question;
  std::string work;
  int64_t answer = 0;
};

std::string signed_term(int64_t value) {
  return value < 0 ? fmt::format("- {}", -value) : fmt::format("+ {}", value);
}

// a x + b = c; from the second size on with x on both sides.
Problem one_unknown(Draw& draw, std::string_view x, size_t size) {
  const Size& level = kSizes[size];
  const int64_t solution = draw.between(1, level.solution);
  const int64_t a = draw.between(2, level.coefficient);
  const int64_t size_of_b = draw.between(1, level.solution);
  const int64_t b = draw.one_in(2) ? size_of_b : -size_of_b;
  Problem problem;
  problem.answer = solution;
  if (size == 0) {
    problem.question = fmt::format("{}{} {} = {}", a, x, signed_term(b), a * solution + b);
    problem.work = fmt::format("{}{} = {}\n", a, x, a * solution);
  } else {
    const int64_t right = draw.between(1, a - 1);
    const int64_t constant = (a - right) * solution + b;
    problem.question =
        fmt::format("{}{} {} = {}{} {}", a, x, signed_term(b), right, x, signed_term(constant));
    problem.work = fmt::format("{}{} {} = {}\n{}{} = {}\n", a - right, x, signed_term(b), constant,
                               a - right, x, (a - right) * solution);
  }
  problem.question = fmt::format("Solve for {}: {}", x, problem.question);
  problem.work += fmt::format("{} = {}\n", x, solution);
  return problem;
}

// x + y = sum and x - y = difference, from the second size on with a coefficient before y.
Problem two_unknowns(Draw& draw, std::string_view x, size_t size) {
  const Size& level = kSizes[size];
  const int64_t second = draw.between(1, level.solution);
  const int64_t first = draw.between(1, level.solution);
  const int64_t factor = size == 0 ? 1 : draw.between(2, level.coefficient);
  const int64_t sum = first + factor * second;
  const int64_t difference = first - factor * second;
  const std::string y = factor == 1 ? "y" : fmt::format("{}y", factor);
  Problem problem;
  problem.answer = first;
  problem.question =
      fmt::format("Solve for {}: {} + {} = {} and {} - {} = {}", x, x, y, sum, x, y, difference);
  problem.work = fmt::format("2{} = {}\n{} = {}\n", x, sum + difference, x, first);
  return problem;
}

Problem remainder(Draw& draw, std::string_view x, size_t size) {
  const Size& level = kSizes[size];
  const int64_t modulus = draw.between(3, level.coefficient + 4);
  const int64_t quotient = draw.between(2, level.solution);
  const int64_t rest = draw.between(0, modulus - 1);
  const int64_t value = quotient * modulus + rest;
  Problem problem;
  problem.answer = rest;
  problem.question =
      fmt::format("What is {} when {} is the remainder of {} divided by {}?", x, x, value, modulus);
  problem.work = fmt::format("{} * {} = {}\n{} - {} = {}\n", quotient, modulus, quotient * modulus,
                             value, quotient * modulus, rest);
  return problem;
}

struct Unit {
  std::string_view large;
  std::string_view small;
  int64_t factor;
};
constexpr std::array<Unit, 6> kUnits = {{{"hours", "minutes", 60},
                                         {"minutes", "seconds", 60},
                                         {"days", "hours", 24},
                                         {"weeks", "days", 7},
                                         {"feet", "inches", 12},
                                         {"meters", "centimeters", 100}}};

Problem units(Draw& draw, std::string_view x, size_t size) {
  const Size& level = kSizes[size];
  const Unit& unit = draw.pick(kUnits);
  const int64_t large = draw.between(2, level.solution);
  const int64_t small = draw.between(1, unit.factor - 1);
  Problem problem;
  problem.answer = large * unit.factor + small;
  problem.question = fmt::format("{} {} and {} {} are {} {}. What is {}?", large, unit.large, small,
                                 unit.small, x, unit.small, x);
  problem.work = fmt::format("{} * {} = {}\n{} + {} = {}\n", large, unit.factor,
                             large * unit.factor, large * unit.factor, small, problem.answer);
  return problem;
}

constexpr std::array<Problem (*)(Draw&, std::string_view, size_t), 4> kKinds = {
    one_unknown, two_unknowns, remainder, units};

}  // namespace

Draft draft_algebra(Draw& draw, int32_t difficulty) {
  const std::string_view pupil = draw.unique_pick(kNames);
  const std::string_view x = draw.unique_pick(kLetters);
  const size_t sheet = draw.unique(1024);
  const size_t size = draw.within(kLevels[static_cast<size_t>(difficulty)]);
  Draft draft;
  draft.cluster = static_cast<int32_t>(draw.below(kKinds.size()));
  const Problem problem = kKinds[static_cast<size_t>(draft.cluster)](draw, x, size);
  draft.prompt = fmt::format(
      "Exercise {} for {}. {}\nWork step by step and end with \"Answer:\" and the number.", sheet,
      pupil, problem.question);
  draft.reference["answer"] = problem.answer;
  draft.oracle = fmt::format("{}Answer: {}", problem.work, problem.answer);
  return draft;
}

}  // namespace puna::check
