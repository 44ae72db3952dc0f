// SPDX-License-Identifier: Apache-2.0
#include "check/families/code_steps.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <boost/json/array.hpp>
#include <boost/json/string.hpp>
#include <span>
#include <utility>

#include "base/check.h"
#include "check/families/words.h"

namespace puna::check {
namespace {

namespace json = boost::json;
using List = std::vector<int64_t>;

// How a step is said and written: {0} is its number, {1} its letters.
struct StepText {
  std::string_view words;
  std::string_view python;
  bool ends = false;  // gives another kind of value, so it is the last step
};

enum Number : size_t {
  kAdd,
  kSubtract,
  kMultiply,
  kRemainder,
  kNegate,
  kLarger,
  kSmaller,
  kSquare
};
constexpr std::array<StepText, 8> kNumberSteps = {{
    {"add {0}", "x + {0}"},
    {"subtract {0}", "x - {0}"},
    {"multiply by {0}", "x * {0}"},
    {"take the remainder of the division by {0}", "x % {0}"},
    {"change the sign", "-x"},
    {"take the larger of it and {0}", "max(x, {0})"},
    {"take the smaller of it and {0}", "min(x, {0})"},
    {"square it", "x * x"},
}};

enum ListStep : size_t {
  kEven,
  kAbove,
  kAddEach,
  kTimesEach,
  kReverse,
  kSort,
  kDrop,
  kKeep,
  kSum,
  kCount,
  kHowOften
};
constexpr std::array<StepText, 11> kListSteps = {{
    {"keep the even numbers", "[n for n in x if n % 2 == 0]"},
    {"keep the numbers above {0}", "[n for n in x if n > {0}]"},
    {"add {0} to every number", "[n + {0} for n in x]"},
    {"multiply every number by {0}", "[n * {0} for n in x]"},
    {"reverse the order", "x[::-1]"},
    {"sort from small to large", "sorted(x)"},
    {"drop the first {0}", "x[{0}:]"},
    {"keep the first {0}", "x[:{0}]"},
    {"take the sum", "sum(x)", true},
    {"take the number of elements", "len(x)", true},
    {"count how often {0} is there", "x.count({0})", true},
}};

enum TextStep : size_t { kUpper, kTurn, kRepeat, kAppend, kPrepend, kRemove, kFirst, kLength };
constexpr std::array<StepText, 8> kTextSteps = {{
    {"make it capital letters", "x.upper()"},
    {"reverse it", "x[::-1]"},
    {"repeat it {0} times", "x * {0}"},
    {"append \"{1}\"", "x + \"{1}\""},
    {"put \"{1}\" before it", "\"{1}\" + x"},
    {"remove every letter \"{1}\"", "x.replace(\"{1}\", \"\")"},
    {"keep the first {0} characters", "x[:{0}]"},
    {"take its length", "len(x)", true},
}};

std::span<const StepText> table_of(CodeInput kind) {
  if (kind == CodeInput::kNumber) return kNumberSteps;
  if (kind == CodeInput::kList) return kListSteps;
  return kTextSteps;
}

constexpr std::array<std::string_view, 3> kInputs = {"an integer", "a list of integers",
                                                     "a string"};

int64_t draw_number(Draw& draw, CodeInput kind, size_t step) {
  if (kind == CodeInput::kNumber) {
    if (step == kMultiply || step == kRemainder) return draw.between(2, 99);
    return draw.between(1, 9999);
  }
  if (kind == CodeInput::kList) {
    if (step == kTimesEach) return draw.between(2, 9);
    if (step == kDrop || step == kKeep) return draw.between(1, 4);
    return draw.between(1, 99);
  }
  return step == kRepeat ? draw.between(2, 4) : draw.between(2, 6);
}

// Of no meaning, so that only exact copying helps.
std::string draw_letters(Draw& draw, int64_t count) {
  std::string letters;
  for (int64_t i = 0; i < count; ++i) letters += static_cast<char>('a' + draw.below(26));
  return letters;
}

int64_t evaluate_number(const CodeStep& step, int64_t x) {
  switch (step.kind) {
    case kAdd:
      return x + step.number;
    case kSubtract:
      return x - step.number;
    case kMultiply:
      return x * step.number;
    case kRemainder: {  // as Python's: never negative for a positive divisor
      const int64_t rest = x % step.number;
      return rest < 0 ? rest + step.number : rest;
    }
    case kNegate:
      return -x;
    case kLarger:
      return std::max(x, step.number);
    case kSmaller:
      return std::min(x, step.number);
    default:
      return x * x;
  }
}

void evaluate_list(const CodeStep& step, List& x) {
  const auto first = std::min(static_cast<size_t>(step.number), x.size());
  switch (step.kind) {
    case kEven:
      std::erase_if(x, [](int64_t n) { return n % 2 != 0; });
      break;
    case kAbove:
      std::erase_if(x, [&](int64_t n) { return n <= step.number; });
      break;
    case kAddEach:
      for (int64_t& n : x) n += step.number;
      break;
    case kTimesEach:
      for (int64_t& n : x) n *= step.number;
      break;
    case kReverse:
      std::reverse(x.begin(), x.end());
      break;
    case kSort:
      std::sort(x.begin(), x.end());
      break;
    case kDrop:
      x.erase(x.begin(), x.begin() + static_cast<ptrdiff_t>(first));
      break;
    default:
      x.resize(first);
  }
}

int64_t reduce_list(const CodeStep& step, const List& x) {
  if (step.kind == kCount) return static_cast<int64_t>(x.size());
  int64_t result = 0;
  for (const int64_t n : x)
    result += step.kind == kSum ? n : static_cast<int64_t>(n == step.number);
  return result;
}

void evaluate_text(const CodeStep& step, std::string& x) {
  const std::string before = x;
  switch (step.kind) {
    case kUpper:
      for (char& byte : x) {
        if (byte >= 'a' && byte <= 'z') byte = static_cast<char>(byte - 'a' + 'A');
      }
      break;
    case kTurn:
      std::reverse(x.begin(), x.end());
      break;
    case kRepeat:
      for (int64_t i = 1; i < step.number; ++i) x += before;
      break;
    case kAppend:
      x += step.letters;
      break;
    case kPrepend:
      x = step.letters + x;
      break;
    case kRemove:
      std::erase(x, step.letters[0]);
      break;
    default:
      x = x.substr(0, static_cast<size_t>(step.number));
  }
}

constexpr int64_t kLargestArgument = 99;  // in size; texts are shorter
constexpr int64_t kLargestValue = 1'000'000;

// What bounds a number's size or a text's length after a step; lists stay small by themselves.
int64_t grown_by(CodeInput kind, const CodeStep& step, int64_t largest) {
  if (kind == CodeInput::kText) return step.kind == kRepeat ? largest * step.number : largest + 8;
  if (kind == CodeInput::kList) return largest;
  if (step.kind == kSquare) return largest * largest;
  if (step.kind == kMultiply) return largest * step.number;
  return largest + step.number;
}

}  // namespace

CodePlan draw_code_plan(Draw& draw, size_t steps) {
  CodePlan plan;
  plan.kind = static_cast<CodeInput>(draw.below(kInputs.size()));
  plan.input = kInputs[static_cast<size_t>(plan.kind)];
  const std::span<const StepText> table = table_of(plan.kind);
  int64_t largest = kLargestArgument;
  while (plan.steps.size() < steps) {
    CodeStep step;
    step.kind = draw.below(table.size());
    step.number = draw_number(draw, plan.kind, step.kind);
    if (table[step.kind].ends && plan.steps.size() + 1 < steps) continue;
    const int64_t grown = grown_by(plan.kind, step, largest);
    if (grown > kLargestValue) continue;
    largest = grown;
    const bool is_letter = plan.kind == CodeInput::kText && step.kind == kRemove;
    step.letters = draw_letters(draw, is_letter ? 1 : draw.between(3, 8));
    const StepText& text = table[step.kind];
    plan.words += plan.words.empty() ? "" : "; ";
    plan.words += fmt::format(fmt::runtime(text.words), step.number, step.letters);
    plan.python += fmt::format("    x = {}\n",
                               fmt::format(fmt::runtime(text.python), step.number, step.letters));
    plan.steps.push_back(std::move(step));
  }
  plan.cluster = static_cast<int32_t>(static_cast<size_t>(plan.kind) * 16 + plan.steps.back().kind);
  return plan;
}

json::value draw_code_argument(Draw& draw, const CodePlan& plan, bool is_least) {
  if (plan.kind == CodeInput::kNumber) return is_least ? 0 : draw.between(-99, 99);
  if (plan.kind == CodeInput::kText) {
    if (is_least) return json::string();
    json::string text(draw.pick(kNouns));
    if (draw.one_in(2)) text.append(draw.pick(kNames));
    return text;
  }
  json::array list;
  const int64_t length = is_least ? 0 : draw.between(1, 8);
  for (int64_t i = 0; i < length; ++i) list.emplace_back(draw.between(-20, 30));
  return list;
}

json::value evaluate(const CodePlan& plan, const json::value& argument) {
  const std::span<const StepText> table = table_of(plan.kind);
  if (plan.kind == CodeInput::kNumber) {
    int64_t x = argument.as_int64();
    for (const CodeStep& step : plan.steps) x = evaluate_number(step, x);
    return x;
  }
  if (plan.kind == CodeInput::kText) {
    std::string x(argument.as_string());
    for (const CodeStep& step : plan.steps) {
      if (table[step.kind].ends) return static_cast<int64_t>(x.size());
      evaluate_text(step, x);
    }
    return json::string(x);
  }
  List x;
  for (const json::value& number : argument.as_array()) x.push_back(number.as_int64());
  for (const CodeStep& step : plan.steps) {
    if (table[step.kind].ends) return reduce_list(step, x);
    evaluate_list(step, x);
  }
  json::array list;
  for (const int64_t number : x) list.emplace_back(number);
  return list;
}

}  // namespace puna::check
