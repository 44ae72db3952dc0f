// SPDX-License-Identifier: Apache-2.0
// A Python function from the description of its steps. The expected values come from the same steps
// evaluated here; the answer runs in the sandbox on arguments that its prompt does not show.
#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <string>
#include <utility>
#include <vector>

#include "check/families/answer_text.h"
#include "check/families/code_steps.h"
#include "check/families/generators.h"
#include "check/families/sandbox.h"
#include "check/families/words.h"

namespace puna::check {
namespace {

namespace json = boost::json;

constexpr size_t kCases = 6;
constexpr std::array<std::array<size_t, 2>, kMaxDifficulty + 1> kSteps = {
    {{3, 7}, {4, 8}, {5, 9}, {7, 11}, {9, 12}}};

// Runs the answer's function on each list of arguments; the results leave by descriptor 3.
constexpr std::string_view kCallHarness = R"py(
names = {"__name__": "answer"}
exec(compile(data["program"], "answer", "exec"), names)
function = names[data["entry"]]
results = [function(*arguments) for arguments in data["arguments"]]
os.write(3, json.dumps(results).encode())
)py";

// Runs a test that raises when the answer is wrong. The word to say at the end is not in the test.
constexpr std::string_view kAssertHarness = R"py(
names = {"__name__": "answer"}
exec(compile(data["program"], "answer", "exec"), names)
word = data.pop("word")
exec(compile(data["test"], "test", "exec"), names)
names["check"](names[data["entry"]])
os.write(3, word.encode())
)py";

std::string harness(const json::object& data, std::string_view body) {
  // JSON's string syntax is also Python's.
  const std::string literal = json::serialize(json::string(json::serialize(data)));
  return fmt::format("import json, os\ndata = json.loads({})\n{}", literal, body);
}

// 2.0 is as good as 2; True is not as good as 1.
bool same_value(const json::value& expected, const json::value& found) {
  if (expected.is_array() && found.is_array()) {
    const json::array& a = expected.get_array();
    const json::array& b = found.get_array();
    return std::equal(a.begin(), a.end(), b.begin(), b.end(), same_value);
  }
  if (expected.is_int64() && found.is_double()) {
    return found.get_double() == static_cast<double>(expected.get_int64());
  }
  return expected == found;
}

Score score_calls(const json::object& reference, std::string_view program) {
  json::array arguments;
  for (const json::value& test : reference.at("cases").as_array()) {
    arguments.push_back(test.as_object().at("arguments"));
  }
  const json::object data = {{"program", json::string(program)},
                             {"entry", reference.at("entry")},
                             {"arguments", std::move(arguments)}};
  const SandboxOutcome outcome = run_python(harness(data, kCallHarness), {});
  if (!outcome.ended_well) return wrong(outcome.why);
  json::error_code error;
  const json::value results = json::parse(outcome.result, error);
  if (error || !results.is_array()) return wrong("results that are no JSON");
  const json::array& cases = reference.at("cases").as_array();
  if (results.get_array().size() != cases.size()) return wrong("results that are missing");
  for (size_t i = 0; i < cases.size(); ++i) {
    const json::object& test = cases[i].as_object();
    if (same_value(test.at("expected"), results.get_array()[i])) continue;
    return wrong(fmt::format("{} instead of {} for {}", json::serialize(results.get_array()[i]),
                             json::serialize(test.at("expected")),
                             json::serialize(test.at("arguments"))));
  }
  return {true, ""};
}

Score score_asserts(const json::object& reference, std::string_view program) {
  const std::string_view entry = reference.at("entry").as_string();
  const std::string_view prompt = reference.at("prompt").as_string();
  const bool is_whole = program.find(fmt::format("def {}(", entry)) != std::string_view::npos;
  std::string text = is_whole ? std::string() : std::string(prompt);
  if (is_whole) {  // the prompt's imports go with it
    for (const std::string_view line : lines_of(prompt)) {
      if (line.starts_with("import ") || line.starts_with("from "))
        text += fmt::format("{}\n", line);
    }
  }
  text += program;
  const std::string word = sandbox_nonce();
  if (word.empty()) return wrong("no random bits");
  const json::object data = {{"program", json::string(text)},
                             {"entry", reference.at("entry")},
                             {"test", reference.at("test")},
                             {"word", json::string(word)}};
  const SandboxOutcome outcome = run_python(harness(data, kAssertHarness), {});
  if (!outcome.ended_well) return wrong(outcome.why);
  if (outcome.result != word) return wrong("the test was not reached");
  return {true, ""};
}

}  // namespace

Draft draft_code(Draw& draw, int32_t difficulty) {
  const size_t number = draw.unique(256) + 256 * draw.below(4);
  const std::string_view noun = draw.unique_pick(kNouns);
  const std::string function = fmt::format("{}_{}_{}", draw.unique_pick(kAdjectives), noun, number);
  const CodePlan plan = draw_code_plan(draw, draw.within(kSteps[static_cast<size_t>(difficulty)]));

  Draft draft;
  draft.cluster = plan.cluster;
  draft.prompt = fmt::format(
      "Write a Python function {}(x). x is {}. Steps: {}. Return the result. Answer with the code "
      "only.",
      function, plan.input, plan.words);
  draft.oracle = fmt::format("def {}(x):\n{}    return x", function, plan.python);
  json::array cases;
  for (size_t i = 0; i < kCases; ++i) {
    json::value argument = draw_code_argument(draw, plan, i == 0);
    json::value expected = evaluate(plan, argument);
    cases.push_back(json::object{{"arguments", json::array{std::move(argument)}},
                                 {"expected", std::move(expected)}});
  }
  draft.reference["entry"] = function;
  draft.reference["cases"] = std::move(cases);
  return draft;
}

Score score_code(const boost::json::object& reference, std::string_view answer) {
  // A completion of a HumanEval prompt is indented, so only its end is trimmed away.
  if (reference.contains("test")) {
    const bool is_fenced = answer.find("```") != std::string_view::npos;
    return score_asserts(reference, is_fenced ? code_of(answer) : answer);
  }
  return score_calls(reference, code_of(answer));
}

}  // namespace puna::check
