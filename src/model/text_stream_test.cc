// SPDX-License-Identifier: Apache-2.0
#include "model/text_stream.h"

#include <gtest/gtest.h>

#include <random>

#include "model/golden_strings.h"

namespace puna::model {
namespace {

const Tokenizer& shared_tokenizer() {
  static const Tokenizer tokenizer = [] {
    auto loaded =
        Tokenizer::from_tokenizer_json(read_whole_file(golden_path("small_tokenizer.json")));
    CHECK(loaded.ok());
    return std::move(loaded).value();
  }();
  return tokenizer;
}

std::vector<TokenId> byte_tokens(std::string_view text) {
  std::vector<TokenId> ids;
  for (const char byte : text) ids.push_back(shared_tokenizer().find({&byte, 1}).value());
  return ids;
}

// The whole text through a stream, with its stops.
std::string streamed(const std::vector<TokenId>& ids, const std::vector<std::string>& stops,
                     bool include_stop = false) {
  TextStream stream(shared_tokenizer(), stops, /*skip_special=*/true, include_stop);
  TextStream follower(shared_tokenizer(), stops, /*skip_special=*/true, include_stop);
  std::string text;
  for (const TokenId id : ids) {
    const std::string more = stream.push(id);
    follower.follow(id);
    EXPECT_EQ(follower.stopped(), stream.stopped());
    EXPECT_TRUE(more.empty() || utf8_is_whole(more)) << testing::PrintToString(more);
    text += more;
    if (stream.stopped()) return text;
  }
  return text + stream.flush();
}

TEST(TextStreamTest, ReplacesMalformedBytesAsPythonDoes) {
  const std::vector<std::string> strings = golden_strings();
  std::vector<std::string> malformed;
  std::string in_a_row;
  for (const std::string& text : strings) {
    if (utf8_is_whole(text)) continue;
    malformed.push_back(text);
    in_a_row += text;
  }
  malformed.push_back(in_a_row);
  GoldenReader reader(read_whole_file(golden_path("replaced.bin")));
  ASSERT_EQ(reader.number(), malformed.size());
  ASSERT_GT(malformed.size(), 400U);
  for (const std::string& text : malformed) {
    const std::string expected = reader.bytes(reader.number());
    ASSERT_EQ(streamed(byte_tokens(text), {}), expected) << testing::PrintToString(text);
    ASSERT_EQ(streamed(shared_tokenizer().encode(text), {}), expected);
  }
}

TEST(TextStreamTest, ValidTextPassesUnchanged) {
  for (const std::string& text : golden_strings()) {
    if (!utf8_is_whole(text)) continue;
    ASSERT_EQ(streamed(shared_tokenizer().encode(text), {}), text);
    ASSERT_EQ(streamed(byte_tokens(text), {"\x01never\x02"}), text);
  }
}

TEST(TextStreamTest, NeverSendsHalfACharacter) {
  TextStream stream(shared_tokenizer(), {});
  const std::vector<TokenId> bytes = byte_tokens("a👍");
  EXPECT_EQ(stream.push(bytes[0]), "a");
  for (size_t i = 1; i < 4; ++i) EXPECT_EQ(stream.push(bytes[i]), "");
  EXPECT_EQ(stream.push(bytes[4]), "👍");
  EXPECT_EQ(stream.push(bytes[1]), "");
  EXPECT_EQ(stream.flush(), kReplacementCharacter);
  EXPECT_FALSE(stream.stopped());
}

TEST(TextStreamTest, HoldsBackWhatMayBecomeAStop) {
  TextStream stream(shared_tokenizer(), {"\nUser:"});
  std::string sent;
  for (const TokenId id : byte_tokens("Hi\nUsers\nUser")) sent += stream.push(id);
  EXPECT_EQ(sent, "Hi\nUsers");
  EXPECT_EQ(stream.push(byte_tokens(":")[0]), "");
  EXPECT_TRUE(stream.stopped());
  EXPECT_EQ(stream.push(byte_tokens("x")[0]), "");
  EXPECT_EQ(stream.flush(), "");
}

TEST(TextStreamTest, StopInsideOneToken) {
  const TokenId word = shared_tokenizer().find(" there").value_or(-1);
  const TokenId the = shared_tokenizer().find(" the").value();
  TextStream stream(shared_tokenizer(), {"h"});
  EXPECT_EQ(stream.push(word >= 0 ? word : the), " t");
  EXPECT_TRUE(stream.stopped());
}

TEST(TextStreamTest, FirstCompletedStopWinsThenTheLongest) {
  EXPECT_EQ(streamed(byte_tokens("xxabcd"), {"abcd", "bc"}), "xxa");
  EXPECT_EQ(streamed(byte_tokens("xxabcd"), {"bc", "abc"}), "xx");
  EXPECT_EQ(streamed(byte_tokens("xxabcd"), {"bc", "abc"}, /*include_stop=*/true), "xxabc");
  EXPECT_EQ(streamed(byte_tokens("aab"), {"ab"}), "a");
  EXPECT_EQ(streamed(byte_tokens("abab"), {"abac", ""}), "abab");
}

TEST(TextStreamTest, SkipsSpecialTokensUnlessAsked) {
  const TokenId special = shared_tokenizer().find("<|im_end|>").value();
  TextStream skipping(shared_tokenizer(), {});
  EXPECT_EQ(skipping.push(special), "");
  TextStream showing(shared_tokenizer(), {"<|im_end|>"}, /*skip_special=*/false);
  EXPECT_EQ(showing.push(special), "");
  EXPECT_TRUE(showing.stopped());
  TextStream plain(shared_tokenizer(), {}, /*skip_special=*/false);
  EXPECT_EQ(plain.push(special), "<|im_end|>");
}

TEST(TextStreamTest, IdsOutsideTheVocabularyGiveNothing) {
  TextStream stream(shared_tokenizer(), {});
  for (const TokenId id : {-1, shared_tokenizer().vocab_size(), 1 << 30})
    EXPECT_EQ(stream.push(id), "");
  EXPECT_EQ(stream.flush(), "");
}

// What a stop does to a whole text, said plainly: the shortest beginning of the text that ends with
// a stop, less the longest such stop.
std::string cut_at_stop(const std::string& text, const std::vector<std::string>& stops) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops) {
      if (std::string_view(text).substr(0, end).ends_with(stop))
        longest = std::max(longest, stop.size());
    }
    if (longest != 0) return text.substr(0, end - longest);
  }
  return text;
}

TEST(TextStreamTest, AnyCutIntoTokensGivesTheSameText) {
  std::mt19937 generator(7);
  const auto pick = [&](size_t count) { return static_cast<size_t>(generator() % count); };
  const std::vector<std::string> parts = {"a",  "b", "ab", "ba",       "é",
                                          "日", "👍", "\n", "\xF0\x9F", "\x80"};
  size_t stopped = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string bytes;
    for (size_t i = 0; i < 12; ++i) bytes += parts[pick(parts.size())];
    std::vector<std::string> stops;
    for (size_t i = pick(3); i > 0; --i) {
      std::string stop;
      for (size_t j = 1 + pick(3); j > 0; --j) stop += parts[pick(8)];
      stops.push_back(stop);
    }
    const std::string expected = cut_at_stop(streamed(byte_tokens(bytes), {}), stops);
    ASSERT_EQ(streamed(byte_tokens(bytes), stops), expected);
    ASSERT_EQ(streamed(shared_tokenizer().encode(bytes), stops), expected);
    stopped += expected.size() < bytes.size() ? 1 : 0;
  }
  EXPECT_GT(stopped, 500U);
}

}  // namespace
}  // namespace puna::model
