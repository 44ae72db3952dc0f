// SPDX-License-Identifier: Apache-2.0
// A text and changes to make in it: the answer is the whole new text, byte for byte.
#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <string>
#include <utility>
#include <vector>

#include "check/families/answer_text.h"
#include "check/families/generators.h"
#include "check/families/words.h"

namespace puna::check {
namespace {

enum class Change : uint8_t { kReplace, kDelete, kSwap, kInsert, kCapitals, kPatch };
constexpr size_t kNumChanges = 6;

struct Level {
  std::array<size_t, 2> lines;
  size_t changes;
};
constexpr std::array<Level, kMaxDifficulty + 1> kLevels = {
    {{{5, 8}, 1}, {{7, 10}, 1}, {{8, 11}, 2}, {{14, 18}, 3}, {{24, 32}, 4}}};

std::string joined(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += (text.empty() ? "" : "\n") + line;
  return text;
}

// Prose, or settings with names and numbers, which test copying harder.
std::string draw_line(Draw& draw, std::string_view adjective, std::string_view noun) {
  if (draw.one_in(2)) {
    const std::string_view object = draw.pick(kNouns);
    const std::string_view how = draw.pick(kAdjectives);
    return fmt::format("the {} {} {} the {} {}", adjective, noun, draw.pick(kVerbs), how, object);
  }
  const std::string_view color = draw.pick(kColors);
  return fmt::format("{}_{} = {} {}", adjective, noun, draw.between(10, 9999), color);
}

std::string draw_line(Draw& draw) {
  const std::string_view noun = draw.pick(kNouns);
  return draw_line(draw, draw.pick(kAdjectives), noun);
}

std::string in_capitals(std::string line) {
  std::transform(line.begin(), line.end(), line.begin(), [](char byte) {
    return byte >= 'a' && byte <= 'z' ? static_cast<char>(byte - 'a' + 'A') : byte;
  });
  return line;
}

// Words are what stands between spaces.
std::string with_word_replaced(std::string_view line, std::string_view from, std::string_view to) {
  std::string out;
  for (const std::string_view word : words_of(line)) {
    if (!out.empty()) out += ' ';
    out += word == from ? to : word;
  }
  return out;
}

// Makes one change in `lines` and says it in words.
std::string make_change(Draw& draw, Change change, std::vector<std::string>& lines) {
  const size_t line = draw.below(lines.size());
  switch (change) {
    case Change::kReplace: {
      const std::string from(draw.pick(words_of(lines[line])));
      std::string to(draw.pick(kNouns));
      while (to == from) to = draw.pick(kNouns);
      for (std::string& text : lines) text = with_word_replaced(text, from, to);
      return fmt::format("Replace every word \"{}\" with \"{}\".", from, to);
    }
    case Change::kDelete:
      lines.erase(lines.begin() + static_cast<ptrdiff_t>(line));
      return fmt::format("Delete line {}.", line + 1);
    case Change::kSwap: {
      const size_t other = (line + 1 + draw.below(lines.size() - 1)) % lines.size();
      std::swap(lines[line], lines[other]);
      return fmt::format("Swap line {} and line {}.", line + 1, other + 1);
    }
    case Change::kInsert: {
      const std::string added = draw_line(draw);
      lines.insert(lines.begin() + static_cast<ptrdiff_t>(line) + 1, added);
      return fmt::format("Insert after line {} the line \"{}\".", line + 1, added);
    }
    case Change::kCapitals:
      lines[line] = in_capitals(lines[line]);
      return fmt::format("Write line {} in capital letters.", line + 1);
    case Change::kPatch: {
      const std::string before = lines[line];
      lines[line] = draw_line(draw);
      return fmt::format("Apply this patch:\n@@ -{0} +{0} @@\n-{1}\n+{2}", line + 1, before,
                         lines[line]);
    }
  }
  return {};
}

}  // namespace

Draft draft_edit(Draw& draw, int32_t difficulty) {
  const Level& level = kLevels[static_cast<size_t>(difficulty)];
  const size_t count = draw.within(level.lines);
  std::vector<std::string> lines;
  for (size_t i = 0; i < count; ++i) {
    const bool is_unique = i < 2;
    const std::string_view adjective =
        is_unique ? draw.unique_pick(kAdjectives) : draw.pick(kAdjectives);
    const std::string_view noun = is_unique ? draw.unique_pick(kNouns) : draw.pick(kNouns);
    lines.push_back(draw_line(draw, adjective, noun));
  }
  const std::string before = joined(lines);

  Draft draft;
  std::string after = before;
  std::string told;
  while (after == before) {  // a swap can undo a swap
    told.clear();
    draft.cluster = 0;
    for (size_t i = 0; i < level.changes; ++i) {
      const auto change = static_cast<Change>(draw.below(kNumChanges));
      if (i == 0) draft.cluster = static_cast<int32_t>(change);
      told += make_change(draw, change, lines) + "\n";
    }
    after = joined(lines);
  }
  draft.prompt =
      fmt::format("Text:\n{}\n\n{}Answer with the whole new text, nothing else.", before,
                  level.changes == 1 ? told : "Make these changes one after the other:\n" + told);
  draft.oracle = after;
  draft.reference["text"] = after;
  return draft;
}

Score score_edit(const boost::json::object& reference, std::string_view answer) {
  const std::string_view expected = reference.at("text").as_string();
  const std::string_view found = trimmed(code_of(answer));
  if (found == expected) return {true, ""};
  const auto expected_lines = lines_of(expected);
  const auto found_lines = lines_of(found);
  for (size_t i = 0; i < std::min(expected_lines.size(), found_lines.size()); ++i) {
    if (expected_lines[i] != found_lines[i]) {
      return wrong(fmt::format("line {} is \"{}\" instead of \"{}\"", i + 1, found_lines[i],
                               expected_lines[i]));
    }
  }
  return wrong(fmt::format("{} lines instead of {}", found_lines.size(), expected_lines.size()));
}

}  // namespace puna::check
