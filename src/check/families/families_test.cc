// SPDX-License-Identifier: Apache-2.0
// Each generator proves itself: its oracle scores, a corrupted answer does not, harder is longer,
// nothing repeats, and the same request gives the same item.
#include <gtest/gtest.h>

#include <algorithm>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <set>
#include <string>
#include <unordered_set>
#include <vector>

#include "base/sanitizers.h"
#include "check/families/answer_text.h"
#include "check/families/draw.h"
#include "check/families/family.h"
#include "check/families/item_lines.h"

namespace puna::check {
namespace {

constexpr uint64_t kSeed = 20261128;

std::vector<Family> all_families() {
  std::vector<Family> families;
  for (int i = 0; i < kNumFamilies; ++i) families.push_back(static_cast<Family>(i));
  return families;
}

// Sanitizers make an item many times slower, and look for other faults than rare items.
constexpr int32_t fewer(int32_t many) { return PUNA_SANITIZED ? many / 10 : many; }

// How many items a test looks at: `many`, but fewer where scoring starts a process and where an
// item is a book.
int32_t sample(Family family, int32_t difficulty, int32_t many) {
  many = fewer(many);
  if (family == Family::kCode) return many / 25;
  if (family == Family::kRetrieval && difficulty >= 2) return many / 50;
  return many;
}

class FamilyTest : public testing::TestWithParam<Family> {
 protected:
  void SetUp() override {
    if (const auto can = can_score(GetParam()); !can.ok()) GTEST_SKIP() << can.error().message();
  }
};

// The oracle's answer with one thing wrong, as the family counts wrong.
std::string corrupted(const Item& item) {
  std::string text = item.oracle;
  // The last letter or digit turns into another one; words are drawn from lists in which no two
  // differ in their last letter alone in that way.
  const size_t last =
      text.find_last_of("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ");
  char& byte = text[last];
  if (byte >= '0' && byte <= '9') {
    byte = byte == '9' ? '8' : static_cast<char>(byte + 1);
  } else {
    byte = byte == 'q' ? 'j' : byte == 'Q' ? 'J' : byte >= 'a' ? 'q' : 'Q';
  }
  if (item.family == Family::kFormat) text += "\none line too many here";
  return text;
}

TEST_P(FamilyTest, ItsOracleScoresAndACorruptedAnswerDoesNot) {
  const Family family = GetParam();
  for (int32_t difficulty = 0; difficulty <= kMaxDifficulty; ++difficulty) {
    for (int32_t index = 0; index < sample(family, difficulty, 1000); ++index) {
      const Item item = make_item({family, kSeed, index, difficulty});
      if (family == Family::kOpenChat) {
        const Score open = score(item, item.oracle);
        EXPECT_FALSE(open.correct);
        EXPECT_NE(open.why.find("no right answer"), std::string::npos);
        continue;
      }
      const Score right = score(item, item.oracle);
      ASSERT_TRUE(right.correct) << right.why << "\n" << item_line(item);
      const Score bad = score(item, corrupted(item));
      ASSERT_FALSE(bad.correct) << corrupted(item) << "\n" << item_line(item);
      ASSERT_FALSE(bad.why.empty());
      const Score empty = score(item, "");
      ASSERT_FALSE(empty.correct) << item_line(item);
      ASSERT_FALSE(score(item, "?").correct) << item_line(item);
    }
  }
}

// The answer to another item is wrong here: scorers look at this item, not at the shape.
TEST_P(FamilyTest, TheNextItemsAnswerIsWrong) {
  const Family family = GetParam();
  if (family == Family::kOpenChat) GTEST_SKIP() << "has no right answer";
  int32_t right = 0;
  const int32_t count = sample(family, 1, 1000);
  for (int32_t index = 0; index < count; ++index) {
    const Item item = make_item({family, kSeed, index, 1});
    right += score(item, make_item({family, kSeed, index + 1, 1}).oracle).correct ? 1 : 0;
  }
  // Two sums can be the same number, and a text can obey two sets of rules.
  EXPECT_LE(right, family == Family::kFormat ? count / 10 : count / 20);
}

TEST_P(FamilyTest, HarderItemsAreLonger) {
  size_t before = 0;
  for (int32_t difficulty = 0; difficulty <= kMaxDifficulty; ++difficulty) {
    size_t bytes = 0;
    for (int32_t index = 0; index < 100; ++index) {
      const Item item = make_item({GetParam(), kSeed, index, difficulty});
      bytes += item.messages.front().content.size() + item.oracle.size();
    }
    EXPECT_GT(bytes, before) << difficulty;
    before = bytes;
  }
}

TEST_P(FamilyTest, TenThousandItemsAreAllDifferent) {
  for (const int32_t difficulty : {0, 1}) {
    const int32_t count =
        GetParam() == Family::kRetrieval && difficulty == 1 ? fewer(1000) : fewer(10000);
    std::unordered_set<std::string> seen;
    for (int32_t index = 0; index < count; ++index) {
      const Item item = make_item({GetParam(), kSeed, index, difficulty});
      EXPECT_TRUE(seen.insert(item.messages.front().content).second) << item_line(item);
    }
  }
}

TEST_P(FamilyTest, TheSameRequestGivesTheSameItem) {
  for (int32_t index = 0; index < 50; ++index) {
    const ItemRequest request = {GetParam(), kSeed, index, 1};
    EXPECT_EQ(item_line(make_item(request)), item_line(make_item(request)));
    ItemRequest other = request;
    other.seed += 1;
    EXPECT_NE(make_item(request).messages.front().content,
              make_item(other).messages.front().content);
  }
}

TEST_P(FamilyTest, TrainingNeverSeesWhatIsAsked) {
  const int32_t count = fewer(4000);
  std::unordered_set<std::string> asked;
  for (int32_t index = 0; index < count; ++index) {
    asked.insert(make_item({GetParam(), kSeed, index, 0}).messages.front().content);
  }
  for (const uint64_t seed : {kSeed, uint64_t{1}, uint64_t{2}}) {
    for (int32_t index = 0; index < count; ++index) {
      const Item item = make_item({GetParam(), seed | kTrainingSeedBit, index, 0});
      EXPECT_FALSE(asked.contains(item.messages.front().content)) << item_line(item);
    }
  }
}

TEST_P(FamilyTest, AnItemIsComplete) {
  std::set<int32_t> clusters;
  for (int32_t index = 0; index < 200; ++index) {
    const Item item = make_item({GetParam(), kSeed, index, 0});
    EXPECT_EQ(item.index, index);
    EXPECT_EQ(item.seed, kSeed);
    EXPECT_EQ(item.family, GetParam());
    EXPECT_FALSE(item.oracle.empty());
    EXPECT_GT(item.max_tokens, static_cast<int32_t>(item.oracle.size()));
    EXPECT_GE(item.cluster, 0);
    clusters.insert(item.cluster);
    boost::json::error_code error;
    EXPECT_TRUE(boost::json::parse(item.reference, error).is_object());
  }
  EXPECT_GE(clusters.size(), 3U);
}

INSTANTIATE_TEST_SUITE_P(All, FamilyTest, testing::ValuesIn(all_families()),
                         [](const auto& family) { return std::string(name(family.param)); });

TEST(FamilyNamesTest, AreReadBack) {
  for (const Family family : all_families()) {
    EXPECT_EQ(family_named(name(family)), family);
    EXPECT_GE(version(family), 1);
  }
  EXPECT_FALSE(family_named("poetry").has_value());
  EXPECT_FALSE(family_named("").has_value());
}

// The items themselves are pinned, so that no compiler, library or careless edit changes them
// without a new version.
TEST(FamilyGoldenTest, ItemsAreWhatTheyWere) {
  uint64_t hash = 0;
  for (const Family family : all_families()) {
    for (int32_t difficulty = 0; difficulty <= 2; ++difficulty) {
      for (int32_t index = 0; index < 20; ++index) {
        for (const char byte : item_line(make_item({family, kSeed, index, difficulty}))) {
          hash = mixed(hash ^ static_cast<uint8_t>(byte));
        }
      }
    }
  }
  EXPECT_EQ(hash, 2218100843392846893U);
}

Item first_of(Family family) { return make_item({family, kSeed, 0, 0}); }

TEST(FamilyAnswersTest, TalkAroundTheAnswerIsNotWrong) {
  const Item sum = first_of(Family::kArithmetic);
  const std::string number = std::to_string(*final_number(sum.oracle));
  EXPECT_TRUE(score(sum, "So there are **" + number + "** left.").correct);
  EXPECT_TRUE(score(sum, "12 + 30 = 42, hence #### " + number + ".00").correct);
  const Item fact = first_of(Family::kJsonExtract);
  EXPECT_TRUE(score(fact, "Here it is:\n```json\n" + fact.oracle + "\n```\nDone.").correct);
  const Item record = first_of(Family::kRetrieval);
  EXPECT_TRUE(score(record, "It is the " + record.oracle + ".").correct);
  const Item text = first_of(Family::kEdit);
  EXPECT_TRUE(score(text, "```\n" + text.oracle + "\n```").correct);
}

TEST(FamilyAnswersTest, JsonNeedsExactlyTheKeys) {
  const Item fact = first_of(Family::kJsonExtract);
  std::string more = fact.oracle;
  more.insert(more.size() - 1, ",\"extra\":1");
  EXPECT_FALSE(score(fact, more).correct);
  EXPECT_NE(score(fact, more).why.find("nobody asked"), std::string::npos);
  EXPECT_FALSE(score(fact, "{}").correct);
  EXPECT_FALSE(score(fact, fact.oracle.substr(0, fact.oracle.size() - 1)).correct);
}

TEST(ItemLinesTest, AnswersAreScoredByFamilyAndDifficulty) {
  const std::string path = testing::TempDir() + "answers.jsonl";
  std::string lines;
  for (int32_t index = 0; index < 4; ++index) {
    const Item item = make_item({Family::kEdit, 5, index, 1});
    boost::json::object line = {{"family", "edit"},
                                {"seed", 5},
                                {"index", index},
                                {"difficulty", 1},
                                {"answer", index == 0 ? "no" : item.oracle}};
    lines += boost::json::serialize(line) + "\n";
  }
  FILE* file = std::fopen(path.c_str(), "w");
  std::fputs(lines.c_str(), file);
  std::fclose(file);
  const auto rows = score_answers(path);
  ASSERT_TRUE(rows.ok()) << rows.error().message();
  ASSERT_EQ(rows->size(), 1U);
  EXPECT_EQ(rows->front().items, 4);
  EXPECT_EQ(rows->front().correct, 3);
  EXPECT_FALSE(rows->front().first_fault.empty());

  file = std::fopen(path.c_str(), "a");
  std::fputs("{\"family\":\"poetry\",\"seed\":1,\"index\":0,\"difficulty\":0,\"answer\":\"\"}\n",
             file);
  std::fclose(file);
  const auto bad = score_answers(path);
  ASSERT_FALSE(bad.ok());
  EXPECT_NE(bad.error().message().find("answers.jsonl:5: no family \"poetry\""), std::string::npos)
      << bad.error().message();
}

}  // namespace
}  // namespace puna::check
