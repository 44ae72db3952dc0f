// SPDX-License-Identifier: Apache-2.0
// A user's own items: JSON Lines in the shapes of GSM8K and HumanEval.
#include <fmt/core.h>

#include <algorithm>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/mapped_file.h"
#include "check/families/answer_text.h"
#include "check/families/family.h"

namespace puna::check {
namespace {

namespace json = boost::json;

constexpr int32_t kMaxDepth = 16;
constexpr int32_t kMaxAnswerTokens = 512;
constexpr std::string_view kGsmInstruction =
    "\nWork step by step and end with \"Answer:\" and the number.";
constexpr std::string_view kCodeInstruction =
    "Complete this Python function. Answer with the code only.\n\n";

// One line, and where it stands for messages.
struct Line {
  std::string where;
  int32_t index = 0;
  json::object object;

  Result<std::string> text(std::string_view key) const {
    const json::value* value = object.if_contains(key);
    if (value == nullptr) {
      return Error(ErrorCode::kInvalidArgument, "{}: no field \"{}\"", where, key);
    }
    if (!value->is_string()) {
      return Error(ErrorCode::kInvalidArgument, "{}: \"{}\" is no string", where, key);
    }
    return std::string(value->get_string().data(), value->get_string().size());
  }
};

Result<std::vector<Line>> read_lines(const std::string& path) {
  ASSIGN_OR_RETURN(const MappedFile file, MappedFile::open(path));
  const std::string_view bytes(reinterpret_cast<const char*>(file.bytes().data()),
                               file.bytes().size());
  std::vector<Line> lines;
  int32_t number = 0;
  for (const std::string_view text : lines_of(bytes)) {
    ++number;
    if (trimmed(text).empty()) continue;
    Line line;
    line.where = fmt::format("{}:{}", path, number);
    line.index = static_cast<int32_t>(lines.size());
    json::parse_options options;
    options.max_depth = kMaxDepth;
    json::error_code error;
    json::value value = json::parse(text, error, {}, options);
    if (error) {
      return Error(ErrorCode::kInvalidArgument, "{}: no JSON: {}", line.where, error.message());
    }
    if (!value.is_object()) {
      return Error(ErrorCode::kInvalidArgument, "{}: not a JSON object", line.where);
    }
    line.object = std::move(value.get_object());
    lines.push_back(std::move(line));
  }
  if (lines.empty()) return Error(ErrorCode::kInvalidArgument, "{}: no items in it", path);
  return lines;
}

Result<Item> gsm8k_item(const Line& line) {
  ASSIGN_OR_RETURN(const std::string question, line.text("question"));
  ASSIGN_OR_RETURN(std::string answer, line.text("answer"));
  if (answer.find("####") == std::string::npos) {
    return Error(ErrorCode::kInvalidArgument,
                 "{}: \"answer\" does not end with \"####\" and a number", line.where);
  }
  const auto number = final_number(answer);
  if (!number) {
    return Error(ErrorCode::kInvalidArgument, "{}: no whole number after \"####\"", line.where);
  }
  Item item;
  item.family = Family::kArithmetic;
  item.messages.push_back({"user", question + std::string(kGsmInstruction)});
  item.reference = json::serialize(json::object{{"answer", *number}});
  item.oracle = std::move(answer);
  return item;
}

Result<Item> human_eval_item(const Line& line) {
  ASSIGN_OR_RETURN(const std::string prompt, line.text("prompt"));
  ASSIGN_OR_RETURN(const std::string entry, line.text("entry_point"));
  ASSIGN_OR_RETURN(std::string solution, line.text("canonical_solution"));
  ASSIGN_OR_RETURN(const std::string test, line.text("test"));
  if (test.find("def check(") == std::string::npos) {
    return Error(ErrorCode::kInvalidArgument, "{}: \"test\" defines no check(candidate)",
                 line.where);
  }
  Item item;
  item.family = Family::kCode;
  item.messages.push_back({"user", std::string(kCodeInstruction) + prompt});
  item.reference =
      json::serialize(json::object{{"entry", entry}, {"prompt", prompt}, {"test", test}});
  item.oracle = std::move(solution);
  return item;
}

template <typename MakeItem>
Result<std::vector<Item>> read_items(const std::string& path, MakeItem make_item_of) {
  ASSIGN_OR_RETURN(const std::vector<Line> lines, read_lines(path));
  std::vector<Item> items;
  for (const Line& line : lines) {
    ASSIGN_OR_RETURN(Item item, make_item_of(line));
    item.index = line.index;
    item.cluster = line.index;  // nothing is known about which of them are alike
    item.max_tokens = std::max(kMaxAnswerTokens, static_cast<int32_t>(item.oracle.size()));
    items.push_back(std::move(item));
  }
  return items;
}

}  // namespace

Result<std::vector<Item>> read_gsm8k(const std::string& path) {
  return read_items(path, gsm8k_item);
}

Result<std::vector<Item>> read_human_eval(const std::string& path) {
  return read_items(path, human_eval_item);
}

}  // namespace puna::check
