// SPDX-License-Identifier: Apache-2.0
// A request and several functions: call the one that fits with the right arguments, or none when
// no function fits.
#include <fmt/core.h>

#include <array>
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

struct Call {
  std::string request;
  json::object arguments;
};

struct Tool {
  std::string_view signature;
  Call (*make)(Draw& draw);
  std::string_view name() const { return signature.substr(0, signature.find('(')); }
};

json::string text(std::string_view view) { return json::string(view); }

Call weather(Draw& draw) {
  const std::string_view city = draw.pick(kCities);
  const int64_t days = draw.between(2, 14);
  return {fmt::format("What will the weather in {} be in the next {} days?", city, days),
          {{"city", text(city)}, {"days", days}}};
}
// To be worked out from the request, as the purchases below.
Call alarm(Draw& draw) {
  const int64_t start = draw.between(0, 20 * 60);
  const int64_t wait = draw.between(10, 170);
  const int64_t end = start + wait;
  return {fmt::format("It is {}:{:02}. Wake me up in {} minutes.", start / 60, start % 60, wait),
          {{"hour", end / 60}, {"minute", end % 60}}};
}
Call message(Draw& draw) {
  const std::string_view to = draw.pick(kNames);
  const std::string_view how = draw.pick(kAdjectives);
  const std::string said = fmt::format("the {} is {}", draw.pick(kNouns), how);
  return {fmt::format("Tell {} that {}.", to, said), {{"to", text(to)}, {"text", text(said)}}};
}
Call money(Draw& draw) {
  static constexpr std::array<std::string_view, 4> kMoney = {"dollars", "euros", "pounds", "yen"};
  const size_t from = draw.below(kMoney.size());
  const size_t to = (from + 1 + draw.below(kMoney.size() - 1)) % kMoney.size();
  const int64_t amount = draw.between(10, 9999);
  return {fmt::format("How many {} do I get for {} {}?", kMoney[to], amount, kMoney[from]),
          {{"amount", amount}, {"from", text(kMoney[from])}, {"to", text(kMoney[to])}}};
}
Call table(Draw& draw) {
  const int64_t people = draw.between(2, 12);
  const int64_t hour = draw.between(11, 22);
  return {fmt::format("We are {} people and want to eat out at {}.", people, hour),
          {{"people", people}, {"hour", hour}}};
}
Call train(Draw& draw) {
  const size_t from = draw.below(kCities.size());
  const size_t to = (from + 1 + draw.below(kCities.size() - 1)) % kCities.size();
  return {fmt::format("I have to get from {} to {} by rail.", kCities[from], kCities[to]),
          {{"from", text(kCities[from])}, {"to", text(kCities[to])}}};
}
Call light(Draw& draw) {
  static constexpr std::array<std::string_view, 4> kRooms = {"kitchen", "bedroom", "hall",
                                                             "office"};
  const std::string_view room = draw.pick(kRooms);
  const std::string_view color = draw.pick(kColors);
  const int64_t level = draw.between(1, 100);
  return {fmt::format("Make the lamp in the {} {}, at {} percent.", room, color, level),
          {{"room", text(room)}, {"color", text(color)}, {"level", level}}};
}
Call shopping(Draw& draw) {
  const std::string_view item = draw.pick(kThings);
  const int64_t count = draw.between(2, 48);
  const int64_t guests = draw.between(2, 29);
  return {fmt::format("We need {} {} from the shop for each of {} guests.", count, item, guests),
          {{"item", text(item)}, {"count", count * guests}}};
}
Call task(Draw& draw) {
  const bool is_urgent = draw.one_in(2);
  const std::string_view what = draw.pick(kNouns);
  const std::string title = fmt::format("clean the {} {}", draw.pick(kAdjectives), what);
  return {fmt::format("I must not forget to {}.{}", title, is_urgent ? " It is urgent." : ""),
          {{"title", text(title)}, {"urgent", is_urgent}}};
}
Call event(Draw& draw) {
  static constexpr std::array<std::string_view, 7> kDays = {
      "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"};
  const std::string_view who = draw.pick(kNames);
  const std::string_view day = draw.pick(kDays);
  const int64_t hour = draw.between(8, 20);
  return {fmt::format("I meet {} on {} at {}.", who, day, hour),
          {{"with", text(who)}, {"day", text(day)}, {"hour", hour}}};
}

constexpr std::array<Tool, 10> kTools = {{
    {"get_weather(city: string, days: integer)", weather},
    {"set_alarm(hour: integer, minute: integer)", alarm},
    {"send_message(to: string, text: string)", message},
    {"convert_money(amount: integer, from: string, to: string)", money},
    {"book_table(people: integer, hour: integer)", table},
    {"find_train(from: string, to: string)", train},
    {"set_light(room: string, color: string, level: integer)", light},
    {"add_to_shopping_list(item: string, count: integer)", shopping},
    {"add_task(title: string, urgent: boolean)", task},
    {"create_event(with: string, day: string, hour: integer)", event},
}};

constexpr std::array<size_t, kMaxDifficulty + 1> kShown = {3, 4, 5, 7, 9};
constexpr size_t kAbstainOneIn = 5;

}  // namespace

Draft draft_tool_call(Draw& draw, int32_t difficulty) {
  const std::string_view who = draw.unique_pick(kNames);
  const size_t number = draw.unique(16384);
  std::vector<size_t> order(kTools.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  draw.shuffle(order);
  const size_t shown = kShown[static_cast<size_t>(difficulty)];
  const size_t wanted = draw.one_in(kAbstainOneIn) ? order[shown] : order[draw.below(shown)];

  std::string listed;
  bool is_there = false;
  for (size_t i = 0; i < shown; ++i) {
    listed += fmt::format("{}\n", kTools[order[i]].signature);
    is_there |= order[i] == wanted;
  }
  Call call = kTools[wanted].make(draw);
  json::object value;
  value["name"] = text(is_there ? kTools[wanted].name() : "none");
  value["arguments"] = is_there ? std::move(call.arguments) : json::object();

  Draft draft;
  draft.cluster = is_there ? static_cast<int32_t>(wanted) : static_cast<int32_t>(kTools.size());
  draft.prompt = fmt::format(
      "Functions:\n{}Request {} of {}: {}\nAnswer with JSON: the \"name\" of the function that "
      "does "
      "it and its \"arguments\", or the name \"none\" and no arguments if none does.",
      listed, number, who, call.request);
  draft.oracle = json::serialize(value);
  draft.reference["value"] = std::move(value);
  return draft;
}

}  // namespace puna::check
