// SPDX-License-Identifier: Apache-2.0
#include "route/task_family.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <chrono>
#include <fstream>
#include <string>
#include <vector>

#include "route/policy.h"
#include "route/task_words.h"

namespace puna::route {
namespace {

struct Prompt {
  TaskFamily family;
  std::string text;
};

// Lines "family<TAB>text", where "\n" stands for a new line.
std::vector<Prompt> read_mix(const std::string& name) {
  std::vector<Prompt> prompts;
  std::ifstream file(std::string(PUNA_GOLDEN_DIR) + "/route/" + name);
  for (std::string line; std::getline(file, line);) {
    const size_t tab = line.find('\t');
    const auto family = task_family_named(line.substr(0, tab));
    EXPECT_TRUE(family.has_value()) << line;
    if (!family) continue;
    std::string text = line.substr(tab + 1);
    for (size_t at = 0; (at = text.find("\\n")) != std::string::npos;) text.replace(at, 2, "\n");
    prompts.push_back({*family, std::move(text)});
  }
  return prompts;
}

struct Accuracy {
  int all = 0;
  int right = 0;
  int sure = 0;
  int sure_and_right = 0;
};
Accuracy measure(const std::vector<Prompt>& prompts) {
  Accuracy accuracy;
  for (const Prompt& prompt : prompts) {
    const Classified found = classify({.user = prompt.text});
    const bool right = found.family == prompt.family;
    ++accuracy.all;
    accuracy.right += right ? 1 : 0;
    if (found.confidence < kSureConfidence) continue;
    ++accuracy.sure;
    accuracy.sure_and_right += right ? 1 : 0;
  }
  fmt::print("{} of {} right; sure of {}, of these {} right\n", accuracy.right, accuracy.all,
             accuracy.sure, accuracy.sure_and_right);
  return accuracy;
}

TEST(TaskFamily, NamesAreReadBack) {
  for (size_t i = 0; i < kNumTaskFamilies; ++i) {
    const auto family = static_cast<TaskFamily>(i);
    EXPECT_EQ(task_family_named(task_family_name(family)), family);
  }
  EXPECT_FALSE(task_family_named("Code"));
  EXPECT_FALSE(task_family_named(""));
}

// Every family has 12 prompts that the table was not tuned on: 101 of 108 are right, and all 72
// that it is sure of.
TEST(TaskFamily, TheHeldOutMixIsClassifiedWell) {
  const std::vector<Prompt> prompts = read_mix("held_out.tsv");
  ASSERT_EQ(prompts.size(), 108U);
  const Accuracy accuracy = measure(prompts);
  EXPECT_GE(accuracy.right, 97);
  EXPECT_GE(accuracy.sure, 65);
  EXPECT_GE(accuracy.sure_and_right * 100, accuracy.sure * 97);
}

TEST(TaskFamily, TheDevelopmentMixIsClassifiedWell) {
  const Accuracy accuracy = measure(read_mix("development.tsv"));
  ASSERT_EQ(accuracy.all, 72);
  EXPECT_GE(accuracy.right, 69);
}

TEST(TaskFamily, WhatTheClientSaysComesFirst) {
  RequestSigns signs{.header = TaskFamily::kRetrieval,
                     .metadata = TaskFamily::kEdit,
                     .tools = true,
                     .response_format = true,
                     .user = "Solve for x: 3x + 7 = 22"};
  const auto expect = [&](TaskFamily family, Source source, double confidence) {
    const Classified found = classify(signs);
    EXPECT_EQ(found.family, family);
    EXPECT_EQ(found.source, source);
    EXPECT_DOUBLE_EQ(found.confidence, confidence);
  };
  expect(TaskFamily::kRetrieval, Source::kHeader, 1.0);
  signs.header.reset();
  expect(TaskFamily::kEdit, Source::kMetadata, 1.0);
  signs.metadata.reset();
  expect(TaskFamily::kToolCall, Source::kTools, 0.95);
  signs.tools = false;
  expect(TaskFamily::kJsonExtract, Source::kResponseFormat, 0.9);
  signs.response_format = false;
  EXPECT_EQ(classify(signs).family, TaskFamily::kAlgebra);
  EXPECT_EQ(classify(signs).source, Source::kText);
}

TEST(TaskFamily, TheSystemMessageCounts) {
  const std::string user = "Zurich, 4 May: K. Lund paid 79.90.";
  const Classified found = classify(
      {.system = "Extract the facts of the user's text as a JSON object with the fields city, "
                 "date, name and amount.",
       .user = user});
  EXPECT_EQ(found.family, TaskFamily::kJsonExtract);
  EXPECT_GE(found.confidence, kSureConfidence);
}

TEST(TaskFamily, AnInstructionAtEitherEndOfALongTextIsSeen) {
  std::string text;
  while (text.size() < 100'000) text += "The ship left the harbour at dawn with a crew of nine. ";
  const std::string question = "According to the document, who was the captain?";
  EXPECT_EQ(classify({.user = text + question}).family, TaskFamily::kRetrieval);
  EXPECT_EQ(classify({.user = question + "\n" + text}).family, TaskFamily::kRetrieval);
}

TEST(TaskFamily, NothingIsAChatAndNotSure) {
  const Classified found = classify({});
  EXPECT_EQ(found.family, TaskFamily::kOpenChat);
  EXPECT_LT(found.confidence, kSureConfidence);
}

TEST(TaskFamily, EvidenceNamesWhatWasSeen) {
  std::vector<Evidence> evidence;
  classify({.user = "Solve for x: 3x + 7 = 22"}, &evidence);
  bool found = false;
  for (const Evidence& one : evidence) found = found || one.what == "words \"solve for\"";
  EXPECT_TRUE(found);
}

// Bodies of megabytes of any bytes: the time does not grow with the text.
TEST(TaskFamily, ReadsAFewKibibytesOnly) {
  for (const char filler : {'a', ' ', '(', '=', '{', '\xff', '\0'}) {
    const std::string text(8 << 20, filler);
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < 20; ++i) classify({.system = text, .user = text});
    const auto took = std::chrono::steady_clock::now() - begin;
    EXPECT_LT(took, std::chrono::seconds(1));
  }
}

TEST(TaskFamily, PhrasesAreFoundByTheirWords) {
  EXPECT_GT(num_phrases(), 200U);
  ASSERT_EQ(phrases_of("solve for").size(), 1U);
  EXPECT_EQ(phrases_of("solve for")[0].family, TaskFamily::kAlgebra);
  EXPECT_EQ(phrases_of("function").size(), 2U);  // code and tool calls
  EXPECT_TRUE(phrases_of("xylophone").empty());
}

}  // namespace
}  // namespace puna::route
