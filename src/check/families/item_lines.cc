// SPDX-License-Identifier: Apache-2.0
#include "check/families/item_lines.h"

#include <fmt/core.h>

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <optional>
#include <string_view>
#include <utility>

#include "base/mapped_file.h"
#include "check/families/answer_text.h"

namespace puna::check {
namespace {

namespace json = boost::json;

struct Answer {
  ItemRequest request;
  std::string text;
};

std::optional<uint64_t> whole(const json::object& object, std::string_view key) {
  const json::value* value = object.if_contains(key);
  if (value == nullptr) return std::nullopt;
  if (value->is_uint64()) return value->get_uint64();
  if (value->is_int64() && value->get_int64() >= 0)
    return static_cast<uint64_t>(value->get_int64());
  return std::nullopt;
}

Result<Answer> read_answer(std::string_view line) {
  json::error_code error;
  const json::value value = json::parse(line, error);
  if (error || !value.is_object()) {
    return Error(ErrorCode::kInvalidArgument, "not a JSON object");
  }
  const json::object& object = value.get_object();
  const json::value* family = object.if_contains("family");
  const json::value* text = object.if_contains("answer");
  const auto seed = whole(object, "seed");
  const auto index = whole(object, "index");
  const auto difficulty = whole(object, "difficulty");
  if (family == nullptr || !family->is_string() || text == nullptr || !text->is_string() || !seed ||
      !index || *index > INT32_MAX || !difficulty || *difficulty > kMaxDifficulty) {
    return Error(ErrorCode::kInvalidArgument,
                 "needs \"family\", \"seed\", \"index\", \"difficulty\" (0 to {}) and \"answer\"",
                 kMaxDifficulty);
  }
  const std::string_view named = family->get_string();
  const auto found = family_named(named);
  if (!found) return Error(ErrorCode::kInvalidArgument, "no family \"{}\"", named);
  Answer answer;
  answer.request = {*found, *seed, static_cast<int32_t>(*index), static_cast<int32_t>(*difficulty)};
  answer.text = std::string(text->get_string().data(), text->get_string().size());
  return answer;
}

FamilyScore& row_of(std::vector<FamilyScore>& rows, const ItemRequest& request) {
  const auto found = std::find_if(rows.begin(), rows.end(), [&](const FamilyScore& row) {
    return row.family == request.family && row.difficulty == request.difficulty;
  });
  if (found != rows.end()) return *found;
  FamilyScore row;
  row.family = request.family;
  row.difficulty = request.difficulty;
  return rows.emplace_back(std::move(row));
}

}  // namespace

std::string item_line(const Item& item) {
  json::array messages;
  for (const Message& message : item.messages) {
    messages.push_back(json::object{{"role", message.role}, {"content", message.content}});
  }
  json::object line;
  line["family"] = json::string(name(item.family));
  line["version"] = version(item.family);
  line["seed"] = item.seed;
  line["index"] = item.index;
  line["difficulty"] = item.difficulty;
  line["cluster"] = item.cluster;
  line["messages"] = std::move(messages);
  line["reference"] = item.reference;
  line["oracle"] = item.oracle;
  line["max_tokens"] = item.max_tokens;
  return json::serialize(line);
}

Result<std::vector<FamilyScore>> score_answers(const std::string& path) {
  ASSIGN_OR_RETURN(const MappedFile file, MappedFile::open(path));
  const std::string_view bytes(reinterpret_cast<const char*>(file.bytes().data()),
                               file.bytes().size());
  std::vector<FamilyScore> rows;
  int64_t number = 0;
  for (const std::string_view line : lines_of(bytes)) {
    ++number;
    if (trimmed(line).empty()) continue;
    auto answer = read_answer(line);
    if (!answer.ok())
      return std::move(answer).error().with_context(fmt::format("{}:{}", path, number));
    const Score result = score(make_item(answer->request), answer->text);
    FamilyScore& row = row_of(rows, answer->request);
    row.items += 1;
    row.correct += result.correct ? 1 : 0;
    if (!result.correct && row.first_fault.empty()) row.first_fault = result.why;
  }
  return rows;
}

}  // namespace puna::check
