// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cstdio>
#include <string>

#include "check/families/family.h"

namespace puna::check {
namespace {

std::string written(const std::string& text) {
  const std::string path =
      testing::TempDir() + testing::UnitTest::GetInstance()->current_test_info()->name() + ".jsonl";
  FILE* file = std::fopen(path.c_str(), "w");
  std::fputs(text.c_str(), file);
  std::fclose(file);
  return path;
}

const std::string kSum =
    R"({"question": "Ben has 2 pears and buys 3. How many now?", "answer": "2 + 3 = 5\n#### 5"})";
const std::string kAdd = R"py({"task_id": "Own/0", "entry_point": "plus_one",
  "prompt": "from typing import List\n\ndef plus_one(x: List[int]) -> List[int]:\n",
  "canonical_solution": "    return [n + 1 for n in x]\n",
  "test": "def check(candidate):\n    assert candidate([1, 2]) == [2, 3]\n"})py";

std::string one_line(std::string text) {
  std::erase(text, '\n');
  return text;
}

TEST(Gsm8kTest, IsReadAndScored) {
  const auto items = read_gsm8k(written(kSum + "\n\n" + kSum + "\n"));
  ASSERT_TRUE(items.ok()) << items.error().message();
  ASSERT_EQ(items->size(), 2U);
  const Item& item = items->at(1);
  EXPECT_EQ(item.family, Family::kArithmetic);
  EXPECT_EQ(item.index, 1);
  EXPECT_NE(item.cluster, items->at(0).cluster);
  EXPECT_GE(item.max_tokens, 256);
  EXPECT_TRUE(score(item, item.oracle).correct);
  EXPECT_TRUE(score(item, "Ben has 5 pears.").correct);
  EXPECT_FALSE(score(item, "Ben has 6 pears.").correct);
}

TEST(Gsm8kTest, ErrorsNameTheLine) {
  const auto message = [](const std::string& text) {
    const auto items = read_gsm8k(written(text));
    return items.ok() ? std::string("no error") : items.error().message();
  };
  EXPECT_NE(message(kSum + "\n{\"question\": 1").find(".jsonl:2: no JSON"), std::string::npos);
  EXPECT_NE(message(kSum + "\n\n[]").find(".jsonl:3: not a JSON object"), std::string::npos);
  EXPECT_NE(message(R"({"answer": "#### 1"})").find(":1: no field \"question\""),
            std::string::npos);
  EXPECT_NE(message(R"({"question": 7, "answer": "#### 1"})").find("\"question\" is no string"),
            std::string::npos);
  EXPECT_NE(message(R"({"question": "?", "answer": "5"})").find("####"), std::string::npos);
  EXPECT_NE(message(R"({"question": "?", "answer": "#### five"})").find("no whole number"),
            std::string::npos);
  EXPECT_NE(message("\n").find("no items"), std::string::npos);
  EXPECT_FALSE(read_gsm8k("/nonexistent/items.jsonl").ok());
}

TEST(HumanEvalTest, IsReadAndScored) {
  if (const auto can = can_score(Family::kCode); !can.ok()) GTEST_SKIP() << can.error().message();
  const auto items = read_human_eval(written(one_line(kAdd)));
  ASSERT_TRUE(items.ok()) << items.error().message();
  const Item& item = items->front();
  EXPECT_EQ(item.family, Family::kCode);
  const Score right = score(item, item.oracle);
  EXPECT_TRUE(right.correct) << right.why;
  // The whole function, in a block, without the import that the prompt has.
  EXPECT_TRUE(
      score(item, "```python\ndef plus_one(x: List[int]):\n    return [1 + n for n in x]\n```")
          .correct);
  EXPECT_FALSE(score(item, "    return x\n").correct);
  EXPECT_FALSE(score(item, "    import os\n    os._exit(0)\n").correct);
  EXPECT_FALSE(score(item, "    raise SystemExit\n").correct);
  EXPECT_FALSE(score(item, "").correct);
}

TEST(HumanEvalTest, ErrorsNameTheField) {
  std::string without = one_line(kAdd);
  without.replace(without.find("entry_point"), 5, "Entry");
  const auto items = read_human_eval(written(without));
  ASSERT_FALSE(items.ok());
  EXPECT_NE(items.error().message().find(":1: no field \"entry_point\""), std::string::npos);
  std::string no_check = one_line(kAdd);
  no_check.replace(no_check.find("def check"), 9, "def chalk");
  const auto unchecked = read_human_eval(written(no_check));
  ASSERT_FALSE(unchecked.ok());
  EXPECT_NE(unchecked.error().message().find("no check(candidate)"), std::string::npos);
}

}  // namespace
}  // namespace puna::check
