// SPDX-License-Identifier: Apache-2.0
// A short text under rules that a program can check: lines, words, capitals, what begins and ends.
#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <string>
#include <vector>

#include "check/families/answer_text.h"
#include "check/families/generators.h"
#include "check/families/words.h"

namespace puna::check {
namespace {

namespace json = boost::json;

constexpr std::string_view kBullet = "* ";
// The rules besides the number of lines, which is always given.
constexpr std::array<std::string_view, 8> kRules = {"words",  "keyword", "last",  "case",
                                                    "bullet", "stop",    "total", "initials"};
constexpr std::array<size_t, kMaxDifficulty + 1> kNumRules = {3, 4, 5, 6, 7};
constexpr std::string_view kStops = ".,;:!?\"'";

char upper(char byte) {
  return byte >= 'a' && byte <= 'z' ? static_cast<char>(byte - 'a' + 'A') : byte;
}
char lower(char byte) {
  return byte >= 'A' && byte <= 'Z' ? static_cast<char>(byte - 'A' + 'a') : byte;
}
std::string lowered(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(), lower);
  return out;
}

// A sentence of `count` words, 3 to 8, with `subject` as its first noun and `object` as its end.
std::string sentence(Draw& draw, size_t count, std::string_view subject, std::string_view object) {
  static constexpr std::array<std::string_view, 6> kPatterns = {"SVO",    "tSVO",    "tSVtO",
                                                                "tASVtO", "tASVtAO", "dtASVtAO"};
  std::string out;
  for (const char part : kPatterns[count - 3]) {
    if (!out.empty()) out += ' ';
    if (part == 't') out += "the";
    if (part == 'd') out += "today";
    if (part == 'A') out += draw.pick(kAdjectives);
    if (part == 'S') out += subject;
    if (part == 'V') out += draw.pick(kVerbs);
    if (part == 'O') out += object;
  }
  return out;
}

struct Plan {
  std::vector<size_t> words;               // of each line
  std::vector<std::string_view> openings;  // a word in front of each line, for its initial
  std::string_view keyword;
  std::string_view last;
  bool is_upper = false;
  std::vector<std::string_view> rules;
  bool has(std::string_view rule) const {
    return std::find(rules.begin(), rules.end(), rule) != rules.end();
  }
  size_t total() const { return std::accumulate(words.begin(), words.end(), size_t{0}); }
  std::string initials() const {
    std::string letters;
    for (const std::string_view word : openings) letters += word[0];
    return letters;
  }
};

Plan draw_plan(Draw& draw, size_t difficulty, std::string_view last) {
  Plan plan;
  plan.last = last;
  plan.keyword = draw.pick(kNouns);
  plan.is_upper = draw.one_in(2);
  plan.rules.assign(kRules.begin(), kRules.end());
  draw.shuffle(plan.rules);
  plan.rules.resize(kNumRules[difficulty]);
  const size_t lines = 1 + difficulty + draw.below(4);
  const size_t words = 4 + draw.below(5);
  for (size_t i = 0; i < lines; ++i) {
    plan.words.push_back(plan.has("words") ? words : 4 + draw.below(5));
    plan.openings.push_back(draw.pick(kAdjectives));
  }
  return plan;
}

std::string describe(const Plan& plan) {
  const size_t lines = plan.words.size();
  std::string text = fmt::format("- exactly {} {}\n", lines, lines == 1 ? "line" : "lines");
  for (const std::string_view rule : plan.rules) {
    if (rule == "words") text += fmt::format("- exactly {} words in every line\n", plan.words[0]);
    if (rule == "total") text += fmt::format("- exactly {} words in all\n", plan.total());
    if (rule == "keyword") text += fmt::format("- the word \"{}\" in every line\n", plan.keyword);
    if (rule == "last") text += fmt::format("- the last word is \"{}\"\n", plan.last);
    if (rule == "case")
      text += fmt::format("- {} letters only\n", plan.is_upper ? "capital" : "small");
    if (rule == "bullet") text += fmt::format("- every line begins with \"{}\"\n", kBullet);
    if (rule == "stop") text += "- every line ends with a full stop\n";
    if (rule == "initials")
      text += fmt::format("- the first letters of the lines: {}\n", plan.initials());
  }
  return text;
}

std::string obey(Draw& draw, const Plan& plan) {
  std::string text;
  for (size_t line = 0; line < plan.words.size(); ++line) {
    const bool is_last = line + 1 == plan.words.size();
    const std::string_view subject = plan.has("keyword") ? plan.keyword : draw.pick(kNouns);
    const std::string_view object = is_last && plan.has("last") ? plan.last : draw.pick(kNouns);
    if (plan.has("bullet")) text += kBullet;
    if (plan.has("initials")) text += fmt::format("{} ", plan.openings[line]);
    text += sentence(draw, plan.words[line] - (plan.has("initials") ? 1 : 0), subject, object);
    if (plan.has("stop")) text += '.';
    if (!is_last) text += '\n';
  }
  if (plan.has("case") && plan.is_upper)
    std::transform(text.begin(), text.end(), text.begin(), upper);
  return text;
}

std::string_view without_stops(std::string_view word) {
  while (!word.empty() && kStops.find(word.back()) != std::string_view::npos) word.remove_suffix(1);
  while (!word.empty() && kStops.find(word.front()) != std::string_view::npos)
    word.remove_prefix(1);
  return word;
}

std::string_view without_bullet(const json::object& rules, std::string_view line) {
  if (rules.contains("bullet") && line.starts_with(kBullet)) line.remove_prefix(kBullet.size());
  return line;
}

// What is wrong with a line; empty when nothing is.
std::string line_fault(const json::object& rules, std::string_view line) {
  if (rules.contains("bullet") && !line.starts_with(kBullet)) {
    return fmt::format("no \"{}\" before \"{}\"", kBullet, line);
  }
  line = without_bullet(rules, line);
  if (rules.contains("stop") && !line.ends_with('.')) {
    return fmt::format("no full stop after \"{}\"", line);
  }
  const std::vector<std::string_view> words = words_of(line);
  if (const json::value* count = rules.if_contains("words")) {
    if (words.size() != static_cast<size_t>(count->as_int64())) {
      return fmt::format("{} words instead of {}", words.size(), count->as_int64());
    }
  }
  if (const json::value* keyword = rules.if_contains("keyword")) {
    const bool is_there = std::any_of(words.begin(), words.end(), [&](std::string_view word) {
      return lowered(without_stops(word)) == std::string_view(keyword->as_string());
    });
    if (!is_there) return fmt::format("no \"{}\" in \"{}\"", keyword->as_string().c_str(), line);
  }
  return {};
}

}  // namespace

Draft draft_format(Draw& draw, int32_t difficulty) {
  const std::string_view who = draw.unique_pick(kNames);
  const std::string_view adjective = draw.unique_pick(kAdjectives);
  const std::string_view noun = draw.unique_pick(kNouns);
  const std::string_view last = draw.unique_pick(kNouns);
  const Plan plan = draw_plan(draw, static_cast<size_t>(difficulty), last);

  Draft draft;
  draft.prompt = fmt::format(
      "Write for {} about a {} {}, a {} and a {}.\nRules:\n{}Answer with the text only.", who,
      adjective, noun, last, draw.pick(kNouns), describe(plan));
  draft.oracle = obey(draw, plan);
  draft.cluster =
      static_cast<int32_t>(std::find(kRules.begin(), kRules.end(), plan.rules[0]) - kRules.begin());
  json::object& rules = draft.reference;
  rules["lines"] = static_cast<int64_t>(plan.words.size());
  if (plan.has("words")) rules["words"] = static_cast<int64_t>(plan.words[0]);
  if (plan.has("total")) rules["total"] = static_cast<int64_t>(plan.total());
  if (plan.has("keyword")) rules["keyword"] = json::string(plan.keyword);
  if (plan.has("last")) rules["last"] = json::string(plan.last);
  if (plan.has("case")) rules["upper"] = plan.is_upper;
  if (plan.has("bullet")) rules["bullet"] = true;
  if (plan.has("stop")) rules["stop"] = true;
  if (plan.has("initials")) rules["initials"] = plan.initials();
  return draft;
}

Score score_format(const boost::json::object& reference, std::string_view answer) {
  const std::string_view text = trimmed(answer);
  if (text.empty()) return wrong("an empty answer");
  const std::vector<std::string_view> lines = lines_of(text);
  const int64_t wanted = reference.at("lines").as_int64();
  if (lines.size() != static_cast<size_t>(wanted)) {
    return wrong(fmt::format("{} lines instead of {}", lines.size(), wanted));
  }
  int64_t total = 0;
  std::string initials;
  for (const std::string_view line : lines) {
    const std::string fault = line_fault(reference, line);
    if (!fault.empty()) return wrong(fault);
    const std::vector<std::string_view> words = words_of(without_bullet(reference, line));
    if (words.size() < 2) return wrong("a line of less than two words");
    total += static_cast<int64_t>(words.size());
    initials += lower(words[0][0]);
  }
  if (const json::value* all = reference.if_contains("total"); all && all->as_int64() != total) {
    return wrong(fmt::format("{} words in all instead of {}", total, all->as_int64()));
  }
  if (const json::value* letters = reference.if_contains("initials")) {
    const std::string_view expected = letters->as_string();
    if (initials != expected) return wrong(fmt::format("{} instead of {}", initials, expected));
  }
  if (const json::value* is_upper = reference.if_contains("upper")) {
    const auto turn = is_upper->as_bool() ? upper : lower;
    if (std::any_of(text.begin(), text.end(), [&](char byte) { return turn(byte) != byte; })) {
      return wrong("a letter of the wrong case");
    }
  }
  if (const json::value* last = reference.if_contains("last")) {
    const std::string found = lowered(without_stops(words_of(text).back()));
    const std::string_view expected = last->as_string();
    if (found != expected) return wrong(fmt::format("ends on {} instead of {}", found, expected));
  }
  return {true, ""};
}

}  // namespace puna::check
