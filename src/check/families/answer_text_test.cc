// SPDX-License-Identifier: Apache-2.0
#include "check/families/answer_text.h"

#include <gtest/gtest.h>

#include <boost/json/object.hpp>

namespace puna::check {
namespace {

TEST(FinalNumberTest, IsTheOneThatTheAnswerEndsOn) {
  EXPECT_EQ(final_number("3 + 4 = 7"), 7);
  EXPECT_EQ(final_number("Answer: 12 because 5 + 7"), 12);
  EXPECT_EQ(final_number("Answer: 3\nno, Answer: 4."), 4);
  EXPECT_EQ(final_number("so 1 of 2\n#### 1,234"), 1234);
  EXPECT_EQ(final_number("It costs $1,200.00."), 1200);
  EXPECT_EQ(final_number("x = -5"), -5);
  EXPECT_EQ(final_number("9 - 4"), 4);
  EXPECT_EQ(final_number("9 -4"), 4);
  EXPECT_EQ(final_number("-7"), -7);
  EXPECT_EQ(final_number("1,23"), 23);
}

TEST(FinalNumberTest, IsAbsentWhereThereIsNone) {
  EXPECT_FALSE(final_number("").has_value());
  EXPECT_FALSE(final_number("none").has_value());
  EXPECT_FALSE(final_number("Answer: 2.5").has_value());
  EXPECT_FALSE(final_number("5\nAnswer: unknown").has_value());
  EXPECT_FALSE(final_number("9999999999999999999999").has_value());
  EXPECT_EQ(final_number("999999999999999"), 999999999999999);
}

TEST(CodeOfTest, TakesTheFirstBlock) {
  EXPECT_EQ(code_of(" x = 1\n"), "x = 1");
  EXPECT_EQ(code_of("Here:\n```python\nx = 1\n```\nand\n```\ny\n```"), "x = 1");
  EXPECT_EQ(code_of("```python\nx = 1"), "x = 1");
  EXPECT_EQ(code_of("```"), "");
}

TEST(JsonObjectOfTest, TakesTheFirstObject) {
  EXPECT_EQ(json_object_of("so {\"a\": 1} is it {}")->as_object().at("a").as_int64(), 1);
  EXPECT_FALSE(json_object_of("no object").has_value());
  EXPECT_FALSE(json_object_of("{\"a\": 1").has_value());
  EXPECT_FALSE(json_object_of("{a: 1}").has_value());
  std::string deep;
  for (int i = 0; i < 100; ++i) deep += "{\"a\":";
  EXPECT_FALSE(json_object_of(deep).has_value());
}

TEST(LinesOfTest, SplitsAtEveryLineEnd) {
  EXPECT_EQ(lines_of("a\r\nb\n\nc").size(), 4U);
  EXPECT_EQ(lines_of("a\r\nb")[0], "a");
  EXPECT_EQ(lines_of("").size(), 1U);
  EXPECT_EQ(words_of("  a b\n c ").size(), 3U);
  EXPECT_EQ(trimmed(" \n a \t"), "a");
  EXPECT_EQ(trimmed(" \n"), "");
}

}  // namespace
}  // namespace puna::check
