// SPDX-License-Identifier: Apache-2.0
// Facts in prose, to be written down as one JSON object with given keys. From difficulty 2 on some
// values are objects and lists; from difficulty 1 on other people's facts distract.
#include <fmt/core.h>

#include <array>
#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>
#include <string>
#include <utility>
#include <vector>

#include "check/families/answer_text.h"
#include "check/families/generators.h"
#include "check/families/words.h"

namespace puna::check {
namespace {

namespace json = boost::json;

struct Fact {
  std::string key;
  std::string type;  // as the prompt says it
  json::value value;
  std::string sentence;
};

json::string text(std::string_view view) { return json::string(view); }

Fact age(Draw& draw, std::string_view who) {
  const int64_t years = draw.between(18, 90);
  return {"age", "integer", years, fmt::format("{} is {} years old.", who, years)};
}

Fact city(Draw& draw, std::string_view who) {
  const std::string_view city = draw.pick(kCities);
  return {"city", "string", text(city), fmt::format("{} lives in {}.", who, city)};
}

Fact job(Draw& draw, std::string_view who) {
  const std::string_view job = draw.pick(kJobs);
  return {"job", "string", text(job), fmt::format("{} works as a {}.", who, job)};
}

Fact member(Draw& draw, std::string_view who) {
  const bool is_member = draw.one_in(2);
  return {"member", "true or false", is_member,
          fmt::format("{} is {} member of the club.", who, is_member ? "a" : "not a")};
}

Fact plan(Draw& draw, std::string_view who) {
  struct Plan {
    std::string_view name;
    std::string_view said;
  };
  static constexpr std::array<Plan, 3> kPlans = {
      {{"free", "pays nothing"}, {"basic", "has the basic plan"}, {"premium", "pays for premium"}}};
  const Plan& plan = draw.pick(kPlans);
  return {"plan", "free, basic or premium", text(plan.name), fmt::format("{} {}.", who, plan.said)};
}

Fact phone(Draw& draw, std::string_view who) {
  const int64_t last = draw.between(0, 9999);
  const std::string digits = fmt::format("{:03}-{:04}", draw.between(100, 999), last);
  return {"phone", "string", text(digits), fmt::format("{} has the number {}.", who, digits)};
}

Fact price(Draw& draw, std::string_view who) {
  const int64_t dollars = draw.between(10, 9999);
  return {"paid", "integer", dollars, fmt::format("{} paid {} dollars.", who, dollars)};
}

Fact order(Draw& draw, std::string_view who) {
  const std::string_view item = draw.pick(kThings);
  const int64_t count = draw.between(2, 99);
  return {"order", "object with item (string) and count (integer)",
          json::object{{"item", text(item)}, {"count", count}},
          fmt::format("{} orders {} {}.", who, count, item)};
}

Fact colors(Draw& draw, std::string_view who) {
  std::vector<std::string_view> all(kColors.begin(), kColors.end());
  draw.shuffle(all);
  return {"colors", "list of strings", json::array{text(all[0]), text(all[1])},
          fmt::format("{} likes {} and {}.", who, all[0], all[1])};
}

// Two levels deep: an address with a place inside.
Fact address(Draw& draw, std::string_view who) {
  const std::string_view street = draw.pick(kFamilyNames);
  const std::string_view floor_city = draw.pick(kCities);
  const int64_t number = draw.between(1, 199);
  const int64_t level = draw.between(1, 12);
  return {
      "office",
      "object with city (string) and place (object with street (string), number (integer) and "
      "floor (integer))",
      json::object{
          {"city", text(floor_city)},
          {"place", json::object{{"street", text(street)}, {"number", number}, {"floor", level}}}},
      fmt::format("{} has an office at {} {} Street in {}, on floor {}.", who, number, street,
                  floor_city, level)};
}

using MakeFact = Fact (*)(Draw& draw, std::string_view who);
constexpr std::array<MakeFact, 7> kFlat = {age, city, job, member, plan, phone, price};
constexpr std::array<MakeFact, 3> kNested = {order, colors, address};

// How many of each kind a difficulty has, besides the id and the name.
struct Level {
  std::array<size_t, 2> flat;
  std::array<size_t, 2> nested;
  std::array<size_t, 2> others;
};
constexpr std::array<Level, kMaxDifficulty + 1> kLevels = {{{{2, 4}, {0, 1}, {0, 1}},
                                                            {{3, 5}, {0, 1}, {1, 2}},
                                                            {{4, 5}, {1, 2}, {2, 3}},
                                                            {{5, 6}, {2, 3}, {3, 4}},
                                                            {{7, 7}, {3, 3}, {5, 6}}}};

std::vector<MakeFact> choose(Draw& draw, const Level& level) {
  std::vector<MakeFact> chosen(kFlat.begin(), kFlat.end());
  std::vector<MakeFact> nested(kNested.begin(), kNested.end());
  draw.shuffle(chosen);
  draw.shuffle(nested);
  chosen.resize(draw.within(level.flat));
  nested.resize(draw.within(level.nested));
  chosen.insert(chosen.end(), nested.begin(), nested.end());
  return chosen;
}

std::string join(const std::vector<std::string>& parts, std::string_view between) {
  std::string out;
  for (const std::string& part : parts) out += (out.empty() ? "" : std::string(between)) + part;
  return out;
}

}  // namespace

Draft draft_json_extract(Draw& draw, int32_t difficulty) {
  const Level& level = kLevels[static_cast<size_t>(difficulty)];
  const std::string_view who = draw.unique_pick(kNames);
  const std::string full_name = fmt::format("{} {}", who, draw.unique_pick(kFamilyNames));
  const auto id = static_cast<int64_t>(draw.unique(512)) + 512 * draw.between(1, 18);

  std::vector<Fact> facts;
  facts.push_back({"id", "integer", id, fmt::format("The file of {} is {}.", who, id)});
  facts.push_back({"name", "string", text(full_name), fmt::format("This is {}.", full_name)});
  const std::vector<MakeFact> chosen = choose(draw, level);
  for (const MakeFact make : chosen) facts.push_back(make(draw, who));
  draw.shuffle(facts);

  std::vector<std::string> keys;
  json::object value;
  for (const Fact& fact : facts) {
    keys.push_back(fmt::format("{} ({})", fact.key, fact.type));
    value[fact.key] = fact.value;
  }
  draw.shuffle(facts);  // the prose has another order than the keys
  std::vector<std::string> prose;
  prose.reserve(facts.size());
  for (const Fact& fact : facts) prose.push_back(fact.sentence);
  const size_t others = draw.within(level.others);
  for (size_t i = 0; i < others; ++i) {
    std::string_view other = draw.pick(kNames);
    while (other == who) other = draw.pick(kNames);
    prose.push_back(draw.pick(chosen)(draw, other).sentence);
  }
  if (others > 0) draw.shuffle(prose);

  Draft draft;
  draft.cluster = 0;
  for (const MakeFact make : chosen) {  // by the first field that was drawn
    for (size_t i = 0; i < kFlat.size(); ++i) {
      if (make == kFlat[i] && draft.cluster == 0) draft.cluster = static_cast<int32_t>(i) + 1;
    }
  }
  draft.prompt =
      fmt::format("Write the facts about {} as one JSON object with the keys {}.\nText: {}", who,
                  join(keys, ", "), join(prose, " "));
  draft.oracle = json::serialize(value);
  draft.reference["value"] = std::move(value);
  return draft;
}

Score score_json(const boost::json::object& reference, std::string_view answer) {
  const auto found = json_object_of(answer);
  if (!found) return wrong("no JSON object in the answer");
  const json::object& expected = reference.at("value").as_object();
  const json::object& value = found->as_object();
  for (const auto& member : expected) {
    const std::string_view key = member.key();
    const json::value* other = value.if_contains(key);
    if (other == nullptr) return wrong(fmt::format("no key \"{}\"", key));
    if (*other != member.value()) {
      return wrong(fmt::format("\"{}\" is {} instead of {}", key, json::serialize(*other),
                               json::serialize(member.value())));
    }
  }
  if (value.size() != expected.size()) return wrong("keys that nobody asked for");
  return {true, ""};
}

}  // namespace puna::check
