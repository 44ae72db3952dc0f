// SPDX-License-Identifier: Apache-2.0
#include "route/task_family.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "route/task_words.h"

namespace puna::route {
namespace {

using enum TaskFamily;

// Of each text, this much of its beginning and of its end: there the instruction stands, whatever
// document is in between.
constexpr size_t kReadBytes = 1536;
// Without any evidence a request is a chat.
constexpr float kChatPrior = 1.6F;
// How sure the forms of a request make: functions and schemas also come with chats.
constexpr double kToolsConfidence = 0.95;
constexpr double kFormatConfidence = 0.9;
constexpr size_t kLongBytes = 2000;
constexpr size_t kVeryLongBytes = 6000;

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_lower(char c) { return c >= 'a' && c <= 'z'; }
bool is_letter(char c) { return is_lower(c) || (c >= 'A' && c <= 'Z'); }
// Bytes above ASCII belong to words of other languages.
bool is_word(char c) {
  return is_letter(c) || is_digit(c) || c == '_' || c == '\'' || static_cast<uint8_t>(c) >= 0x80U;
}
char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

// Sums what speaks for each family.
class Scores {
 public:
  explicit Scores(std::vector<Evidence>* evidence) : evidence_(evidence) {
    sums_[index_of(kOpenChat)] = kChatPrior;
    seen_.resize(num_phrases());
  }

  void add(TaskFamily family, float weight, std::string_view what) {
    sums_[index_of(family)] += weight;
    if (evidence_ != nullptr) evidence_->push_back({std::string(what), family, weight});
  }
  void add_phrases(std::string_view words) {
    for (const TaskPhrase& phrase : phrases_of(words)) {
      if (seen_[phrase_index(phrase)]) continue;  // a document that repeats a word says it once
      seen_[phrase_index(phrase)] = true;
      sums_[index_of(phrase.family)] += phrase.weight;
      if (evidence_ != nullptr) {
        evidence_->push_back(
            {fmt::format("words \"{}\"", phrase.words), phrase.family, phrase.weight});
      }
    }
  }
  Classified best() const {
    const auto top = std::max_element(sums_.begin(), sums_.end());
    double all = 0;
    for (const float sum : sums_) all += std::exp(static_cast<double>(sum - *top));
    return {.family = static_cast<TaskFamily>(top - sums_.begin()),
            .confidence = 1.0 / all,
            .source = Source::kText};
  }

 private:
  std::array<float, kNumTaskFamilies> sums_ = {};
  std::vector<bool> seen_;
  std::vector<Evidence>* evidence_;
};

// Looks up every run of one to three words, in one pass.
void read_words(std::string_view text, Scores& scores) {
  std::string words;                             // lower case, single spaces
  std::array<size_t, kMaxPhraseWords> starts{};  // of the last words, the newest first
  size_t count = 0;
  for (size_t at = 0; at < text.size();) {
    if (!is_word(text[at])) {
      ++at;
      continue;
    }
    if (!words.empty()) words += ' ';
    std::copy_backward(starts.begin(), starts.end() - 1, starts.end());
    starts[0] = words.size();
    count = std::min(count + 1, kMaxPhraseWords);
    while (at < text.size() && is_word(text[at])) words += lower(text[at++]);
    for (size_t i = 0; i < count; ++i) {
      scores.add_phrases(std::string_view(words).substr(starts[i]));
    }
  }
}

// What its characters look like.
struct Shape {
  int numbers = 0;
  bool sum = false;                // 12 * 7
  bool coefficient = false;        // 3x
  bool power = false;              // x^2
  bool variable_equation = false;  // y = 9
  bool fence = false;              // ```
  bool call = false;               // get_weather(city)
  bool variable = false;           // what is q
  bool hunk = false;               // @@ -3 +3 @@
  bool json = false;               // {"name"
};

char next_visible(std::string_view text, size_t at) {
  while (at < text.size() && text[at] == ' ') ++at;
  return at < text.size() ? text[at] : '\0';
}
char last_visible(std::string_view text, size_t end) {
  while (end > 0 && text[end - 1] == ' ') --end;
  return end > 0 ? text[end - 1] : '\0';
}

// The word that ends before `end` is one letter, as variables are.
bool is_variable_before(std::string_view text, size_t end) {
  while (end > 0 && text[end - 1] == ' ') --end;
  return end > 0 && is_lower(text[end - 1]) && (end == 1 || !is_letter(text[end - 2])) &&
         (end == 1 || text[end - 2] != '_');
}

void look_at(std::string_view text, size_t at, Shape& shape) {
  const char c = text[at];
  const char before = at > 0 ? text[at - 1] : '\0';
  const char after = at + 1 < text.size() ? text[at + 1] : '\0';
  const bool word_before = is_word(before);
  if (is_digit(c) && !word_before && before != '.' && before != ',') ++shape.numbers;
  if (is_digit(c) && is_lower(after) && !is_word(at + 2 < text.size() ? text[at + 2] : ' ') &&
      !is_letter(before)) {
    shape.coefficient = true;
  }
  if (c == '^' && (is_word(before) || before == ')')) shape.power = true;
  if (c == '=' && after != '=' && before != '=' && is_variable_before(text, at)) {
    shape.variable_equation = true;
  }
  const bool operation = c == '+' || c == '*' || c == '/' || c == 'x' || c == '-';
  if (operation && is_digit(last_visible(text, at)) && is_digit(next_visible(text, at + 1)) &&
      (c != '-' && c != '/' ? true : before == ' ')) {
    shape.sum = true;
  }
  if (c == '`' && after == '`' && before == '`') shape.fence = true;
  if (c == '(' && word_before && is_letter(before) && (is_letter(after) || after == ')')) {
    size_t start = at;
    while (start > 0 && is_word(text[start - 1])) --start;
    if (text.substr(start, at - start).find('_') != std::string_view::npos) shape.call = true;
  }
  if (c == '@' && before == '@' && after == ' ') shape.hunk = true;
  // A word of one letter that is no English word.
  if (is_lower(c) && c != 'a' && c != 'i' && !word_before && !is_word(after)) {
    shape.variable = true;
  }
  if (c == '{' && next_visible(text, at + 1) == '"') shape.json = true;
}

void read_shape(std::string_view text, Scores& scores) {
  Shape shape;
  for (size_t at = 0; at < text.size(); ++at) look_at(text, at, shape);
  if (shape.numbers >= 2) {
    scores.add(kArithmetic, 0.35F * static_cast<float>(std::min(shape.numbers, 4)), "numbers");
  }
  if (shape.sum) scores.add(kArithmetic, 1.6F, "a calculation");
  if (shape.coefficient) scores.add(kAlgebra, 1.6F, "a coefficient");
  if (shape.power) scores.add(kAlgebra, 1.6F, "a power");
  if (shape.variable_equation) scores.add(kAlgebra, 1.2F, "an equation");
  if (shape.variable) scores.add(kAlgebra, 1.2F, "a variable");
  if (shape.hunk) scores.add(kEdit, 2.0F, "a patch");
  if (shape.fence) scores.add(kCode, 1.8F, "a code block");
  if (shape.call) scores.add(kToolCall, 1.2F, "a call");
  if (shape.json) scores.add(kJsonExtract, 0.6F, "a JSON object");
  if (shape.json) scores.add(kToolCall, 0.4F, "a JSON object");
}

// Lines that begin with the word of the line before.
void read_lines(std::string_view text, Scores& scores) {
  constexpr int kRecords = 5;
  int alike = 0;
  std::string_view last;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = text.substr(begin, end - begin);
    const std::string_view word = line.substr(0, line.find(' '));
    if (!word.empty() && word == last) ++alike;
    last = word;
    begin = end + 1;
  }
  if (alike >= kRecords) scores.add(kRetrieval, 2.0F, "lines of records");
}

void read_text(std::string_view text, Scores& scores) {
  if (text.size() > 2 * kReadBytes) {
    read_words(text.substr(0, kReadBytes), scores);
    read_words(text.substr(text.size() - kReadBytes), scores);
    read_shape(text.substr(0, kReadBytes), scores);
    read_lines(text.substr(0, kReadBytes), scores);
  } else {
    read_words(text, scores);
    read_shape(text, scores);
    read_lines(text, scores);
  }
}

}  // namespace

std::string_view source_name(Source source) {
  static constexpr std::array<std::string_view, 5> kNames = {"header", "metadata", "tools",
                                                             "response_format", "text"};
  return kNames[static_cast<size_t>(source)];
}

Classified classify(const RequestSigns& signs, std::vector<Evidence>* evidence) {
  if (signs.header) return {*signs.header, 1.0, Source::kHeader};
  if (signs.metadata) return {*signs.metadata, 1.0, Source::kMetadata};
  if (signs.tools) return {kToolCall, kToolsConfidence, Source::kTools};
  if (signs.response_format) return {kJsonExtract, kFormatConfidence, Source::kResponseFormat};
  Scores scores(evidence);
  read_text(signs.system, scores);
  read_text(signs.user, scores);
  const size_t bytes = signs.system.size() + signs.user.size();
  if (bytes > kLongBytes) scores.add(kRetrieval, 1.0F, "a long text");
  if (bytes > kVeryLongBytes) scores.add(kRetrieval, 1.0F, "a very long text");
  return scores.best();
}

}  // namespace puna::route
