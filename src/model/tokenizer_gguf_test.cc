// SPDX-License-Identifier: Apache-2.0
// The tokenizer keys of GGUF files, good and bad. Files are written by formats/gguf_writer.h.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <functional>

#include "formats/gguf_writer.h"
#include "model/tokenizer.h"

namespace puna::model {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

// Everything that a file says; a test changes one thing.
struct Keys {
  std::string model = "gpt2";
  std::string pre = "smollm";
  std::vector<std::string_view> tokens = {"<|s|>", "a",   "b",        "c", "ab",
                                          "abc",   "<u>", "<unused>", "Ġ"};
  std::vector<int32_t> types = {3, 1, 1, 1, 1, 1, 4, 5, 1};
  std::vector<std::string_view> merges = {"a b", "ab c"};
  std::function<Result<>(formats::GgufWriter&)> more;
};

Result<> write_keys(formats::GgufWriter& writer, const Keys& keys) {
  RETURN_IF_ERROR(writer.set("general.architecture", "llama"));
  if (!keys.model.empty()) RETURN_IF_ERROR(writer.set("tokenizer.ggml.model", keys.model));
  RETURN_IF_ERROR(writer.set("tokenizer.ggml.pre", keys.pre));
  RETURN_IF_ERROR(writer.set_array("tokenizer.ggml.tokens", std::span(keys.tokens)));
  RETURN_IF_ERROR(
      writer.set_array("tokenizer.ggml.token_type", std::span<const int32_t>(keys.types)));
  if (!keys.merges.empty()) {
    RETURN_IF_ERROR(writer.set_array("tokenizer.ggml.merges", std::span(keys.merges)));
  }
  if (keys.more) RETURN_IF_ERROR(keys.more(writer));
  RETURN_IF_ERROR(writer.begin());
  return writer.finish();
}

Result<Tokenizer> load(const Keys& keys) {
  const std::string path = testing::TempDir() + "/puna_gguf_" + std::to_string(getpid()) + ".gguf";
  {
    formats::GgufWriter writer(path, {});
    const auto written = write_keys(writer, keys);
    EXPECT_TRUE(written.ok()) << written.error().message();
  }
  auto file = formats::GgufFile::open(path);
  std::filesystem::remove(path);
  if (!file.ok()) return std::move(file).error();
  return Tokenizer::from_gguf(*file);
}

TEST(TokenizerGgufTest, TokenTypesSayHowATokenIsUsed) {
  auto tokenizer = load({});
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message();
  EXPECT_THAT(tokenizer->encode("abcab<u>"), ElementsAre(5, 4, 6));
  EXPECT_THAT(tokenizer->encode("a<|s|>a", {.parse_special = true}), ElementsAre(1, 0, 1));
  EXPECT_THAT(tokenizer->encode("<unused>", {.parse_special = true}), Not(testing::Contains(7)));
  EXPECT_EQ(tokenizer->token_bytes(7), "<unused>");
  EXPECT_EQ(tokenizer->token_bytes(8), " ");
  EXPECT_FALSE(tokenizer->adds_bos());
}

TEST(TokenizerGgufTest, BytesWithoutATokenKeepTheirNeighboursApart) {
  auto tokenizer = load({});
  ASSERT_TRUE(tokenizer.ok());
  EXPECT_THAT(tokenizer->encode("axb"), ElementsAre(1, 2));  // as llama.cpp; Hugging Face merges ab
  EXPECT_THAT(tokenizer->encode("ab" + std::string(100, 'x') + "ab"), ElementsAre(4, 4));
}

TEST(TokenizerGgufTest, ReadsTheRoles) {
  Keys keys;
  keys.more = [](formats::GgufWriter& writer) -> Result<> {
    RETURN_IF_ERROR(writer.set("tokenizer.ggml.bos_token_id", uint32_t{0}));
    RETURN_IF_ERROR(writer.set("tokenizer.ggml.eos_token_id", uint32_t{5}));
    RETURN_IF_ERROR(writer.set("tokenizer.ggml.eot_token_id", uint32_t{4}));
    RETURN_IF_ERROR(writer.set("tokenizer.ggml.eom_token_id", uint32_t{3}));
    RETURN_IF_ERROR(writer.set("tokenizer.ggml.add_bos_token", true));
    return writer.set("tokenizer.chat_template", "T");
  };
  auto tokenizer = load(keys);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message();
  EXPECT_THAT(tokenizer->encode("a", {.add_bos = true}), ElementsAre(0, 1));
  EXPECT_EQ(tokenizer->eos(), TokenId{5});
  EXPECT_THAT(tokenizer->end_of_generation(), ElementsAre(3, 4, 5));
  EXPECT_EQ(tokenizer->chat_template(), "T");
}

TEST(TokenizerGgufTest, Llama3AddsItsBosAndTakesWordsWhole) {
  Keys keys;
  keys.pre = "llama-bpe";
  keys.merges = {"a b"};
  keys.more = [](formats::GgufWriter& writer) {
    return writer.set("tokenizer.ggml.bos_token_id", uint32_t{0});
  };
  auto tokenizer = load(keys);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message();
  EXPECT_TRUE(tokenizer->adds_bos());
  EXPECT_THAT(tokenizer->encode("abc", {.add_bos = true}), ElementsAre(0, 5));
}

TEST(TokenizerGgufTest, RefusesBadKeysByName) {
  const auto with = [](const std::function<void(Keys&)>& change) {
    Keys keys;
    change(keys);
    return keys;
  };
  const auto with_id = [&](std::string_view key, uint32_t id) {
    return with([=](Keys& keys) {
      keys.more = [=](formats::GgufWriter& writer) { return writer.set(key, id); };
    });
  };
  const std::vector<std::pair<Keys, std::string>> cases = {
      {with([](Keys& keys) { keys.model = ""; }), "tokenizer.ggml.model is missing"},
      {with([](Keys& keys) { keys.model = "llama"; }), "'llama'"},
      {with([](Keys& keys) { keys.pre = "deepseek-llm"; }),
       "'deepseek-llm'; supported are llama-bpe"},
      {with([](Keys& keys) { keys.types.pop_back(); }), "8 values for 9 tokens"},
      {with([](Keys& keys) { keys.types[2] = 7; }), "token 2"},
      {with([](Keys& keys) { keys.tokens[8] = "a"; }), "tokens 1 and 8 are the same: 'a'"},
      {with([](Keys& keys) { keys.tokens[8] = ""; }), "token 8 is empty"},
      {with([](Keys& keys) { keys.tokens[6] = "<|s|>"; }), "same name: '<|s|>'"},
      {with([](Keys& keys) { keys.merges.clear(); }), "tokenizer.ggml.merges is missing"},
      {with([](Keys& keys) { keys.merges[1] = "abc"; }), "merges[1] is not two tokens"},
      {with([](Keys& keys) { keys.merges[1] = ""; }), "merges[1] is not two tokens"},
      {with([](Keys& keys) { keys.merges[1] = "a c"; }), "merges[1] uses or makes"},
      {with([](Keys& keys) { keys.merges[1] = "a b"; }), "merge 1 ('a' + 'b') is there twice"},
      {with_id("tokenizer.ggml.bos_token_id", 9), "bos_token_id is not an id of the 9 tokens"},
      {with_id("tokenizer.ggml.eot_token_id", 4000000000), "eot_token_id"},
      {with([](Keys& keys) {
         keys.more = [](formats::GgufWriter& writer) {
           return writer.set("tokenizer.ggml.add_bos_token", true);
         };
       }),
       "beginning-of-text"},
  };
  for (const auto& [keys, message] : cases) {
    auto tokenizer = load(keys);
    ASSERT_FALSE(tokenizer.ok()) << message;
    EXPECT_THAT(tokenizer.error().message(),
                testing::AllOf(HasSubstr(message), HasSubstr(".gguf")));
  }
}

}  // namespace
}  // namespace puna::model
