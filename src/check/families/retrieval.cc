// SPDX-License-Identifier: Apache-2.0
// A long list of records, and a question about one or two of them.
#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <boost/json/array.hpp>
#include <string>
#include <vector>

#include "check/families/answer_text.h"
#include "check/families/generators.h"
#include "check/families/words.h"

namespace puna::check {
namespace {

namespace json = boost::json;

// A record takes about 15 tokens: 180, 1000, 4000, 16,000 and 32,000 tokens in all.
constexpr std::array<size_t, kMaxDifficulty + 1> kRecords = {12, 70, 270, 1080, 2160};
constexpr size_t kCodes = 90000;
constexpr size_t kFirstCode = 10000;
constexpr size_t kKeys = kAdjectives.size() * kNouns.size();

enum class Question : uint8_t { kCode, kTwoCodes, kKey };

struct Record {
  size_t key;
  size_t code;
};

std::string key_text(size_t key) {
  return fmt::format("{} {}", kAdjectives[key % kAdjectives.size()],
                     kNouns[key / kAdjectives.size()]);
}

// Every third key shares a word with the first one, so that half a key is not enough.
size_t draw_key(Draw& draw, size_t first) {
  const size_t key = draw.below(kKeys);
  const size_t adjective = first % kAdjectives.size();
  const size_t noun = first / kAdjectives.size();
  switch (draw.below(6)) {
    case 0:
      return key - key % kAdjectives.size() + adjective;
    case 1:
      return key % kAdjectives.size() + noun * kAdjectives.size();
    default:
      return key;
  }
}

// Different keys and different codes; the first record is the given one.
std::vector<Record> draw_records(Draw& draw, size_t count, Record first) {
  std::vector<bool> has_key(kKeys, false);
  std::vector<bool> has_code(kFirstCode + kCodes, false);
  std::vector<Record> records = {first};
  has_key[first.key] = has_code[first.code] = true;
  while (records.size() < count) {
    Record record = {draw_key(draw, first.key), kFirstCode + draw.below(kCodes)};
    while (has_key[record.key]) record.key = draw.below(kKeys);
    while (has_code[record.code]) record.code = kFirstCode + draw.below(kCodes);
    has_key[record.key] = has_code[record.code] = true;
    records.push_back(record);
  }
  return records;
}

std::string record_text(const Record& record) {
  return fmt::format("The code of the {} is {}.", key_text(record.key), record.code);
}

std::string ask(Question question, const Record& first, const Record& second) {
  switch (question) {
    case Question::kCode:
      return fmt::format("What is the code of the {}? Answer with its record.",
                         key_text(first.key));
    case Question::kTwoCodes:
      return fmt::format(
          "What are the codes of the {} and of the {}? Answer with their records, in this order.",
          key_text(first.key), key_text(second.key));
    case Question::kKey:
      return fmt::format("What has the code {}? Answer with its two words.", first.code);
  }
  return {};
}

bool is_word_of(std::string_view word, const std::array<std::string_view, 64>& words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

// "the Red boat." -> {"red boat"}: every key that the answer names.
std::vector<std::string> keys_in(std::string_view answer) {
  std::string plain;
  for (const char byte : answer) {
    const bool is_upper = byte >= 'A' && byte <= 'Z';
    const bool is_lower = byte >= 'a' && byte <= 'z';
    plain += is_upper ? static_cast<char>(byte - 'A' + 'a') : is_lower ? byte : ' ';
  }
  const std::vector<std::string_view> words = words_of(plain);
  std::vector<std::string> keys;
  for (size_t i = 0; i + 1 < words.size(); ++i) {
    if (is_word_of(words[i], kAdjectives) && is_word_of(words[i + 1], kNouns)) {
      keys.push_back(fmt::format("{} {}", words[i], words[i + 1]));
    }
  }
  return keys;
}

// Every stretch of digits.
std::vector<std::string_view> codes_in(std::string_view answer) {
  constexpr std::string_view kDigits = "0123456789";
  std::vector<std::string_view> codes;
  for (size_t at = 0; (at = answer.find_first_of(kDigits, at)) != std::string_view::npos;) {
    const size_t end = std::min(answer.find_first_not_of(kDigits, at), answer.size());
    codes.push_back(answer.substr(at, end - at));
    at = end;
  }
  return codes;
}

}  // namespace

Draft draft_retrieval(Draw& draw, int32_t difficulty) {
  const size_t count = kRecords[static_cast<size_t>(difficulty)];
  const size_t key = draw.unique(kKeys);
  const size_t code = kFirstCode + draw.unique(256) + 256 * draw.below(kCodes / 256);
  std::vector<Record> records = draw_records(draw, count, {key, code});
  const Record first = records[0];
  const Record second = records[1];
  const size_t depth = draw.below(count);  // where the first record goes
  std::swap(records[0], records[depth]);
  const auto question = static_cast<Question>(draw.below(3));

  std::string listed;
  for (const Record& record : records) {
    listed += record_text(record) + "\n";
  }
  Draft draft;
  draft.cluster = static_cast<int32_t>(static_cast<size_t>(question) * 4 + depth * 4 / count);
  draft.prompt = listed + ask(question, first, second);
  if (question == Question::kKey) {
    draft.oracle = key_text(first.key);
    draft.reference["key"] = draft.oracle;
    return draft;
  }
  json::array codes = {json::string(fmt::format("{}", first.code))};
  draft.oracle = record_text(first);
  if (question == Question::kTwoCodes) {
    codes.emplace_back(json::string(fmt::format("{}", second.code)));
    draft.oracle += "\n" + record_text(second);
  }
  draft.reference["codes"] = std::move(codes);
  return draft;
}

Score score_retrieval(const boost::json::object& reference, std::string_view answer) {
  if (const json::value* key = reference.if_contains("key")) {
    const std::string_view expected = key->as_string();
    const std::vector<std::string> keys = keys_in(answer);
    if (keys.empty()) return wrong("no record named");
    for (const std::string& found : keys) {
      if (found != expected) return wrong(fmt::format("{} instead of {}", found, expected));
    }
    return {true, ""};
  }
  const json::array& expected = reference.at("codes").as_array();
  const std::vector<std::string_view> codes = codes_in(answer);
  if (codes.size() != expected.size()) {
    return wrong(fmt::format("{} codes instead of {}", codes.size(), expected.size()));
  }
  for (size_t i = 0; i < codes.size(); ++i) {
    const std::string_view wanted = expected[i].as_string();
    if (codes[i] != wanted) return wrong(fmt::format("{} instead of {}", codes[i], wanted));
  }
  return {true, ""};
}

}  // namespace puna::check
