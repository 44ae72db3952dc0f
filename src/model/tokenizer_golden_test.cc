// SPDX-License-Identifier: Apache-2.0
// Every token of 6,357 strings equals what tiktoken, Hugging Face tokenizers and llama-tokenize
// give.
#include <gtest/gtest.h>

#include "formats/gguf.h"
#include "model/golden_strings.h"
#include "model/tokenizer.h"

namespace puna::model {
namespace {

// How many strings are compared at least, so that an empty golden file fails.
constexpr size_t kEnough = 5000;

size_t expect_equal(const Tokenizer& tokenizer, std::string_view ids_file, bool parse_special) {
  const std::vector<std::string> strings = golden_strings();
  const auto expected = golden_ids(ids_file);
  EXPECT_EQ(strings.size(), expected.size());
  size_t compared = 0;
  size_t wrong = 0;
  for (size_t i = 0; i < strings.size() && wrong < 10; ++i) {
    if (!expected[i]) continue;
    ++compared;
    const auto ids = tokenizer.encode(strings[i], {.parse_special = parse_special});
    if (ids != *expected[i]) {
      ++wrong;
      ADD_FAILURE() << ids_file << " string " << i << ": " << testing::PrintToString(strings[i])
                    << "\n  expected " << testing::PrintToString(*expected[i]) << "\n  got      "
                    << testing::PrintToString(ids);
    }
  }
  return compared;
}

void expect_round_trips(const Tokenizer& tokenizer) {
  for (const std::string& text : golden_strings()) {
    ASSERT_EQ(tokenizer.decode(tokenizer.encode(text), /*skip_special=*/false), text);
    ASSERT_EQ(tokenizer.decode(tokenizer.encode(text, {.parse_special = true}), false), text);
  }
}

// The committed tokenizer.json with another pre-tokenizer in it.
std::string small_json(std::string_view kind) {
  std::string json = read_whole_file(golden_path("small_tokenizer.json"));
  const auto replace = [&](std::string_view from, std::string_view to) {
    const size_t at = json.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    json.replace(at, from.size(), to);
  };
  const std::string split = R"(\\p{N}{1,3})";
  if (kind == "qwen2") replace(split, R"(\\p{N})");
  if (kind == "gpt-2" || kind == "smollm") {
    const size_t begin = json.find(R"("pre_tokenizer":)");
    const size_t end = json.find(R"("post_processor":)");
    const std::string byte_level =
        R"({"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true})";
    const std::string digits = R"({"type":"Digits","individual_digits":true})";
    const std::string steps =
        R"({"type":"Sequence","pretokenizers":[)" + digits + "," + byte_level + "]}";
    json.replace(begin, end - begin,
                 R"("pre_tokenizer":)" + (kind == "gpt-2" ? byte_level : steps) + ",");
  }
  return json;
}

class SmallTokenizerTest : public testing::TestWithParam<std::string> {};

TEST_P(SmallTokenizerTest, EqualsHuggingFaceTokenizers) {
  auto tokenizer = Tokenizer::from_tokenizer_json(small_json(GetParam()));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message();
  EXPECT_GE(expect_equal(*tokenizer, "small_" + GetParam() + ".ids", false), kEnough);
  expect_round_trips(*tokenizer);
}

INSTANTIATE_TEST_SUITE_P(Kinds, SmallTokenizerTest,
                         testing::Values("llama-bpe", "qwen2", "gpt-2", "smollm"),
                         [](const auto& kind) {
                           std::string name = kind.param;
                           std::erase(name, '-');
                           return name;
                         });

TEST(TokenizerGoldenTest, SpecialTokensInTrustedTextEqualHuggingFace) {
  auto tokenizer = Tokenizer::from_tokenizer_json(small_json("llama-bpe"));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message();
  EXPECT_GE(expect_equal(*tokenizer, "small_llama-bpe_names.ids", true), 50U);
  EXPECT_TRUE(tokenizer->adds_bos());
  EXPECT_EQ(tokenizer->bos(), TokenId{1});
}

TEST(TokenizerGoldenTest, SmallGgufEqualsHuggingFace) {
  auto file = formats::GgufFile::open(golden_path("small_smollm.gguf"));
  ASSERT_TRUE(file.ok()) << file.error().message();
  auto tokenizer = Tokenizer::from_gguf(*file);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message();
  EXPECT_GE(expect_equal(*tokenizer, "small_smollm.ids", false), kEnough);
  expect_round_trips(*tokenizer);
  EXPECT_TRUE(tokenizer->adds_bos());
  EXPECT_EQ(tokenizer->bos(), TokenId{1});
  EXPECT_EQ(tokenizer->eos(), TokenId{2});
}

TEST(TokenizerGoldenTest, MetaFileEqualsTiktoken) {
  const std::string path = environment("PUNA_TEST_META_TOKENIZER");
  if (path.empty()) GTEST_SKIP() << "PUNA_TEST_META_TOKENIZER is not set";
  auto tokenizer = Tokenizer::from_tiktoken(read_whole_file(path));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message();
  EXPECT_EQ(tokenizer->vocab_size(), 128256);
  EXPECT_GE(expect_equal(*tokenizer, "meta.ids", false), kEnough);
  EXPECT_GE(expect_equal(*tokenizer, "meta_names.ids", true), 100U);
  expect_round_trips(*tokenizer);
}

TEST(TokenizerGoldenTest, SmolLmGgufEqualsLlamaTokenize) {
  const std::string path = environment("PUNA_TEST_MODEL");
  if (path.empty()) GTEST_SKIP() << "PUNA_TEST_MODEL is not set";
  auto file = formats::GgufFile::open(path);
  ASSERT_TRUE(file.ok()) << file.error().message();
  auto tokenizer = Tokenizer::from_gguf(*file);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message();
  EXPECT_GE(expect_equal(*tokenizer, "smollm_gguf.ids", false), kEnough);
  EXPECT_GE(expect_equal(*tokenizer, "smollm_gguf_names.ids", true), 100U);
}

// The big tokenizer.json files that make_tokenizer_golden.py writes to its --cache.
TEST(TokenizerGoldenTest, BigTokenizerJsonEqualsHuggingFace) {
  const std::string folder = environment("PUNA_TEST_TOKENIZER_CACHE");
  if (folder.empty()) GTEST_SKIP() << "PUNA_TEST_TOKENIZER_CACHE is not set";
  auto llama3 = Tokenizer::from_tokenizer_json(read_whole_file(folder + "/llama3_tokenizer.json"));
  ASSERT_TRUE(llama3.ok()) << llama3.error().message();
  EXPECT_GE(expect_equal(*llama3, "meta.ids", false), kEnough);
  EXPECT_GE(expect_equal(*llama3, "meta_names.ids", true), 100U);
  EXPECT_EQ(llama3->bos(), TokenId{128000});
  auto smollm = Tokenizer::from_tokenizer_json(read_whole_file(folder + "/smollm_tokenizer.json"));
  ASSERT_TRUE(smollm.ok()) << smollm.error().message();
  EXPECT_GE(expect_equal(*smollm, "smollm_json.ids", false), kEnough);
  EXPECT_GE(expect_equal(*smollm, "smollm_json_names.ids", true), 100U);
}

// llama.cpp's folder `models`, which holds vocabularies without weights.
TEST(TokenizerGoldenTest, GgufVocabulariesEqualLlamaTokenize) {
  const std::string folder = environment("PUNA_TEST_VOCABULARIES");
  if (folder.empty()) GTEST_SKIP() << "PUNA_TEST_VOCABULARIES is not set";
  for (const std::string kind : {"llama-bpe", "gpt-2", "qwen2"}) {
    auto file = formats::GgufFile::open(folder + "/ggml-vocab-" + kind + ".gguf");
    ASSERT_TRUE(file.ok()) << file.error().message();
    auto tokenizer = Tokenizer::from_gguf(*file);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message();
    EXPECT_GE(expect_equal(*tokenizer, "vocab_" + kind + ".ids", false), kEnough);
  }
}

}  // namespace
}  // namespace puna::model
