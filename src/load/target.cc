// SPDX-License-Identifier: Apache-2.0
#include "load/target.h"

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <cmath>

#include "load/http_connection.h"

namespace puna::load {
namespace {

namespace json = boost::json;

// Common enough to be one token each, with the space before it, in most vocabularies.
constexpr std::array<std::string_view, 64> kWords = {
    "time",    "year",   "people", "way",    "day",   "man",     "thing",  "woman",
    "life",    "child",  "world",  "school", "state", "family",  "group",  "country",
    "hand",    "part",   "place",  "case",   "week",  "company", "system", "program",
    "work",    "number", "night",  "point",  "home",  "water",   "room",   "mother",
    "area",    "money",  "story",  "fact",   "month", "lot",     "right",  "study",
    "book",    "eye",    "job",    "word",   "side",  "kind",    "head",   "house",
    "service", "friend", "father", "power",  "hour",  "game",    "line",   "end",
    "member",  "law",    "car",    "city",   "name",  "team",    "minute", "idea"};

// Ids in the middle of a vocabulary: special tokens stand at its ends.
json::array token_ids(uint64_t seed, int64_t count, int32_t limit) {
  Random random(seed);
  json::array ids;
  ids.reserve(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) ids.push_back(random.between(limit / 8, limit / 2));
  return ids;
}

int64_t words_for(const Target& target, int64_t tokens) {
  const double count = std::round(static_cast<double>(tokens) / target.tokens_per_word);
  return std::max<int64_t>(1, static_cast<int64_t>(count));
}

uint64_t piece_seed(const PlannedRequest& planned, size_t piece) {
  return Random(planned.text_seed + piece).next();
}

uint64_t prefix_seed(const Target& target) { return Random(target.seed ^ 0x5EED).next(); }

json::array chat_messages(const Target& target, const PlannedRequest& planned) {
  json::array messages;
  if (target.shared_prefix_tokens > 0) {
    messages.push_back(
        {{"role", "system"},
         {"content", words(prefix_seed(target), words_for(target, target.shared_prefix_tokens))}});
  }
  for (size_t i = 0; i < planned.pieces.size(); ++i) {
    const int64_t tokens = planned.pieces[i] - (i == 0 ? target.template_tokens : 0);
    messages.push_back({{"role", i % 2 == 0 ? "user" : "assistant"},
                        {"content", words(piece_seed(planned, i), words_for(target, tokens))}});
  }
  return messages;
}

json::value completion_prompt(const Target& target, const PlannedRequest& planned) {
  if (target.prompt_id_limit > 0) {
    json::array ids =
        token_ids(prefix_seed(target), target.shared_prefix_tokens, target.prompt_id_limit);
    for (size_t i = 0; i < planned.pieces.size(); ++i) {
      for (auto& id :
           token_ids(piece_seed(planned, i), planned.pieces[i], target.prompt_id_limit)) {
        ids.push_back(std::move(id));
      }
    }
    return ids;
  }
  std::string text;
  if (target.shared_prefix_tokens > 0) {
    text = words(prefix_seed(target), words_for(target, target.shared_prefix_tokens));
  }
  for (size_t i = 0; i < planned.pieces.size(); ++i) {
    text += words(piece_seed(planned, i), words_for(target, planned.pieces[i]));
  }
  return json::value(text);
}

}  // namespace

std::string words(uint64_t seed, int64_t count) {
  Random random(seed);
  std::string text;
  for (int64_t i = 0; i < count; ++i) {
    text.append(" ").append(kWords[random.next() % kWords.size()]);
  }
  return text;
}

std::string Target::path() const {
  return endpoint == Endpoint::kChat ? "/v1/chat/completions" : "/v1/completions";
}

Headers Target::key_headers(size_t tenant) const {
  const std::string& key = tenants[tenant].key;
  if (key.empty()) return {};
  return {{"Authorization", "Bearer " + key}};
}

std::string request_of(const Target& target, const PlannedRequest& planned) {
  json::object body = {{"model", target.model},
                       {"stream", true},
                       {"stream_options", {{"include_usage", true}}},
                       {"temperature", 0},
                       {"max_tokens", planned.output_tokens}};
  if (target.ignore_eos) body["ignore_eos"] = true;
  if (target.endpoint == Endpoint::kChat) {
    body["messages"] = chat_messages(target, planned);
  } else {
    body["prompt"] = completion_prompt(target, planned);
  }
  Headers headers = target.key_headers(static_cast<size_t>(planned.tenant));
  headers.emplace_back("x-puna-timings", "1");  // what was quoted; others don't know it
  if (planned.cls >= 0) {
    headers.emplace_back("x-puna-class", target.classes[static_cast<size_t>(planned.cls)].name);
  }
  return http_request("POST", target.path(), target.url, headers, json::serialize(body));
}

}  // namespace puna::load
