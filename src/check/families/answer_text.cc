// SPDX-License-Identifier: Apache-2.0
#include "check/families/answer_text.h"

#include <fmt/core.h>

#include <algorithm>
#include <boost/json/parse.hpp>
#include <boost/json/stream_parser.hpp>
#include <utility>

namespace puna::check {
namespace {

constexpr std::string_view kSpaces = " \t\r\n\f\v";
constexpr size_t kMaxDigits = 15;
constexpr size_t kMaxDepth = 16;

bool is_digit(char byte) { return byte >= '0' && byte <= '9'; }

struct NumberText {
  size_t end = 0;  // one past its last byte
  std::optional<int64_t> value;
};

// The number whose first digit is at `at`.
NumberText read_number(std::string_view text, size_t at) {
  int64_t value = 0;
  size_t digits = 0;
  size_t end = at;
  const auto thousands = [&](size_t comma) {  // ",ddd" and no fourth digit
    return comma + 3 < text.size() && text[comma] == ',' && is_digit(text[comma + 1]) &&
           is_digit(text[comma + 2]) && is_digit(text[comma + 3]) &&
           (comma + 4 == text.size() || !is_digit(text[comma + 4]));
  };
  while (end < text.size() && (is_digit(text[end]) || thousands(end))) {
    if (is_digit(text[end]) && ++digits <= kMaxDigits) value = value * 10 + (text[end] - '0');
    ++end;
  }
  bool is_whole = digits <= kMaxDigits;
  if (end + 1 < text.size() && text[end] == '.' && is_digit(text[end + 1])) {
    for (++end; end < text.size() && is_digit(text[end]); ++end) is_whole &= text[end] == '0';
  }
  // A minus belongs to the number unless it stands between two numbers ("9 -4", "9-4").
  const size_t sign = at == 0 ? std::string_view::npos : at - 1;
  if (sign != std::string_view::npos && text[sign] == '-') {
    const size_t before = text.substr(0, sign).find_last_not_of(' ');
    if (before == std::string_view::npos || !is_digit(text[before])) value = -value;
  }
  return {end, is_whole ? std::optional(value) : std::nullopt};
}

NumberText last_number(std::string_view text) {
  NumberText last;
  for (size_t at = 0; at < text.size();) {
    if (!is_digit(text[at])) {
      ++at;
      continue;
    }
    last = read_number(text, at);
    at = last.end;
  }
  return last;
}

NumberText first_number(std::string_view text) {
  const size_t at = text.find_first_of("0123456789");
  return at == std::string_view::npos ? NumberText() : read_number(text, at);
}

}  // namespace

std::string_view trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(kSpaces);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpaces) - begin + 1);
}

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  while (true) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    lines.push_back(line);
    if (end == std::string_view::npos) return lines;
    text.remove_prefix(end + 1);
  }
}

std::vector<std::string_view> words_of(std::string_view text) {
  std::vector<std::string_view> words;
  for (size_t at = 0; (at = text.find_first_not_of(kSpaces, at)) != std::string_view::npos;) {
    const size_t end = std::min(text.find_first_of(kSpaces, at), text.size());
    words.push_back(text.substr(at, end - at));
    at = end;
  }
  return words;
}

std::optional<int64_t> final_number(std::string_view answer) {
  for (const std::string_view mark : {"####", "Answer:"}) {
    const size_t at = answer.rfind(mark);
    if (at != std::string_view::npos) return first_number(answer.substr(at + mark.size())).value;
  }
  return last_number(answer).value;
}

std::string_view code_of(std::string_view answer) {
  const size_t fence = answer.find("```");
  if (fence == std::string_view::npos) return trimmed(answer);
  const size_t begin = answer.find('\n', fence);  // the rest of the line names the language
  if (begin == std::string_view::npos) return {};
  const size_t end = answer.find("```", begin);
  const size_t length = end == std::string_view::npos ? end : end - begin - 1;
  const std::string_view inside = answer.substr(begin + 1, length);
  return inside.substr(0, inside.find_last_not_of(kSpaces) + 1);  // an indent in front stays
}

std::optional<boost::json::value> json_object_of(std::string_view answer) {
  const size_t begin = answer.find('{');
  if (begin == std::string_view::npos) return std::nullopt;
  boost::json::parse_options options;
  options.max_depth = kMaxDepth;
  boost::json::stream_parser parser(boost::json::storage_ptr(), options);
  boost::json::error_code error;
  const std::string_view rest = answer.substr(begin);
  parser.write_some(rest.data(), rest.size(), error);
  if (error || !parser.done()) return std::nullopt;
  return parser.release();
}

Score number_score(int64_t expected, std::string_view answer) {
  const auto found = final_number(answer);
  if (!found) return wrong("no whole number in the answer");
  if (*found != expected) return wrong(fmt::format("{} instead of {}", *found, expected));
  return {true, ""};
}

Score wrong(std::string why) { return {false, std::move(why)}; }

}  // namespace puna::check
