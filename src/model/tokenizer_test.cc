// SPDX-License-Identifier: Apache-2.0
#include "model/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <thread>

#include "model/golden_strings.h"
#include "model/stand_in_tokenizer.h"

namespace puna::model {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

Tokenizer small_tokenizer() {
  auto loaded =
      Tokenizer::from_tokenizer_json(read_whole_file(golden_path("small_tokenizer.json")));
  CHECK(loaded.ok());
  return std::move(loaded).value();
}

// a b c ab bc abc, and names that are added tokens.
std::string tiny_json(std::string_view merges, std::string_view added = "[]",
                      std::string_view more = "") {
  return R"({"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},)" +
         std::string(R"("model":{"type":"BPE",)") + std::string(more) +
         R"("vocab":{"a":0,"b":1,"c":2,"ab":3,"bc":4,"abc":5,"Ġ":6},"merges":)" +
         std::string(merges) + R"(},"added_tokens":)" + std::string(added) + "}";
}

Tokenizer tiny(std::string_view merges, std::string_view added = "[]", std::string_view more = "") {
  auto loaded = Tokenizer::from_tokenizer_json(tiny_json(merges, added, more));
  CHECK(loaded.ok());
  return std::move(loaded).value();
}

TEST(TokenizerTest, MergesTheFirstRuleFirst) {
  EXPECT_THAT(tiny(R"(["a b","b c"])").encode("abc"), ElementsAre(3, 2));
  EXPECT_THAT(tiny(R"(["b c","a b"])").encode("abc"), ElementsAre(0, 4));
  EXPECT_THAT(tiny(R"([["b","c"],["a","bc"]])").encode("abcbc"), ElementsAre(5, 4));
}

TEST(TokenizerTest, WordsThatAreTokensAreOnlyTakenWholeWhereTheModelSaysSo) {
  EXPECT_THAT(tiny(R"(["a b"])").encode("abc"), ElementsAre(3, 2));
  EXPECT_THAT(tiny(R"(["a b"])", "[]", R"("ignore_merges":true,)").encode("abc"), ElementsAre(5));
  EXPECT_EQ(tiny(R"(["a b"])").find("abc"), TokenId{5});
}

TEST(TokenizerTest, AStandInHoldsEveryByteAndLlama3sSpecialTokens) {
  const auto tokenizer = stand_in_tokenizer();
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message();
  EXPECT_EQ(tokenizer->vocab_size(), 128256);
  EXPECT_EQ(tokenizer->find("<|eot_id|>"), TokenId{128009});
  const std::string text = "The quick brown fox: \xF0\x9F\xA6\x8A, \x01 and 128,256 tokens.";
  const auto ids = tokenizer->encode(text);
  EXPECT_EQ(tokenizer->decode(ids, false), text);
  EXPECT_LT(ids.size(), text.size() * 2 / 3);  // words shrink
  EXPECT_FALSE(tokenizer->token_bytes(127999).empty());
  EXPECT_EQ(tokenizer->bos(), TokenId{128000});
}

TEST(TokenizerTest, BytesWithoutATokenAreDropped) {
  const Tokenizer tokenizer = tiny(R"(["a b"])");
  EXPECT_THAT(tokenizer.encode("xaxbx"), ElementsAre(3));  // as Hugging Face: x was never there
  EXPECT_THAT(tokenizer.encode("x"), ElementsAre());
  EXPECT_THAT(tokenizer.encode(std::string(100, 'x') + "ab"), ElementsAre(3));
}

TEST(TokenizerTest, AddedTokensAreFoundByTheirNames) {
  const Tokenizer tokenizer = tiny(R"(["a b"])",
                                   R"([{"id":7,"content":"<x>","special":true},
                                       {"id":8,"content":"<xy","special":false},
                                       {"id":9,"content":"<xyz>","special":true}])");
  EXPECT_THAT(tokenizer.encode("a<x>b", {.parse_special = true}), ElementsAre(0, 7, 1));
  EXPECT_THAT(tokenizer.encode("a<x>b"), ElementsAre(0, 1));     // no token for < > x: dropped
  EXPECT_THAT(tokenizer.encode("a<xyb"), ElementsAre(0, 8, 1));  // a plain added token is text
  EXPECT_THAT(tokenizer.encode("<xyz>", {.parse_special = true}), ElementsAre(9));  // the longest
  EXPECT_THAT(tokenizer.encode("<xyz>"), ElementsAre(8));
  EXPECT_TRUE(tokenizer.is_special(7));
  EXPECT_FALSE(tokenizer.is_special(8));
  EXPECT_EQ(tokenizer.decode(std::vector<TokenId>{0, 7, 8}, /*skip_special=*/true), "a<xy");
}

TEST(TokenizerTest, PiecesAreOneText) {
  const Tokenizer tokenizer = tiny(R"(["a b"])", R"([{"id":7,"content":"<x>","special":true}])");
  const std::vector<TextPiece> split_word = {{"a", true}, {"b", false}, {"", false}};
  EXPECT_THAT(tokenizer.encode(split_word, false), ElementsAre(3));
  // The untrusted <x> is text (three bytes that this vocabulary drops).
  const std::vector<TextPiece> mixed = {{"<x>a", true}, {"<x>b", false}, {"c<x>", true}};
  EXPECT_THAT(tokenizer.encode(mixed, false), ElementsAre(7, 0, 1, 2, 7));
  // A name that only comes together across a border is no special token.
  const std::vector<TextPiece> torn = {{"<x", true}, {">", false}, {"<", false}, {"x>", true}};
  EXPECT_THAT(tokenizer.encode(torn, false), ElementsAre());
  EXPECT_THAT(tokenizer.encode(std::span<const TextPiece>(), false), ElementsAre());
}

TEST(TokenizerTest, AddsBosOnlyWhereTheModelDoes) {
  const Tokenizer with_bos = small_tokenizer();
  EXPECT_TRUE(with_bos.adds_bos());
  EXPECT_EQ(with_bos.encode("", {.add_bos = true}), std::vector<TokenId>{1});
  EXPECT_TRUE(with_bos.encode("", {.add_bos = false}).empty());
  const Tokenizer without = tiny("[]");
  EXPECT_FALSE(without.adds_bos());
  EXPECT_THAT(without.encode("a", {.add_bos = true}), ElementsAre(0));
}

TEST(TokenizerTest, EndTokensHaveTheirNames) {
  const Tokenizer tokenizer = small_tokenizer();  // <|endoftext|> 0, <|im_start|> 1, <|im_end|> 2
  EXPECT_THAT(tokenizer.end_of_generation(), ElementsAre(0, 2));
  EXPECT_EQ(tokenizer.eos(), std::nullopt);
}

TEST(TokenizerTest, IdsOutsideTheVocabularyHaveNoBytes) {
  const Tokenizer tokenizer = small_tokenizer();
  for (const TokenId id : {-1, tokenizer.vocab_size(), 1 << 30}) {
    EXPECT_EQ(tokenizer.token_bytes(id), "");
    EXPECT_FALSE(tokenizer.is_special(id));
  }
  EXPECT_EQ(tokenizer.find(""), std::nullopt);
  EXPECT_EQ(tokenizer.find("no such token at all"), std::nullopt);
}

TEST(TokenizerTest, EveryTokenIsFoundByItsBytes) {
  const Tokenizer tokenizer = small_tokenizer();
  for (TokenId id = 0; id < tokenizer.vocab_size(); ++id) {
    ASSERT_EQ(tokenizer.find(tokenizer.token_bytes(id)), id);
    ASSERT_LE(tokenizer.token_bytes(id).size(),
              static_cast<size_t>(tokenizer.longest_token_bytes()));
  }
}

// A quadratic merge would take hours for one of these.
TEST(TokenizerTest, LongWordsTakeLinearTime) {
  const Tokenizer tokenizer = small_tokenizer();
  for (const std::string_view unit : {"a", " ", "\n", "ab", "é", "1", "!", "\xFF", "' ", "<"}) {
    std::string text;
    while (text.size() < (1U << 20)) text += unit;
    const auto begin = std::chrono::steady_clock::now();
    const std::vector<TokenId> ids = tokenizer.encode(text, {.parse_special = true});
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    EXPECT_LT(seconds.count(), 5.0)
        << unit;  // about 0.1 s; sanitizers and busy machines take longer
    EXPECT_EQ(tokenizer.decode(ids, false), text);
  }
}

// Long words take another path than short ones; both must merge alike.
TEST(TokenizerTest, LongWordsMergeLikeShortOnes) {
  const Tokenizer tokenizer = tiny(R"(["a b","b c","ab c"])");
  std::string text;
  std::vector<TokenId> expected;
  for (int i = 0; i < 200; ++i) {
    text += i % 3 == 0 ? "abc" : "cbc";
    if (i % 3 == 0) expected.insert(expected.end(), {5});
    if (i % 3 != 0) expected.insert(expected.end(), {2, 4});
  }
  EXPECT_EQ(tokenizer.encode(text), expected);
  EXPECT_EQ(tokenizer.encode(text.substr(0, 9)),
            std::vector<TokenId>(expected.begin(), expected.begin() + 5));
}

TEST(TokenizerTest, ManyThreadsEncodeAtTheSameTime) {
  const Tokenizer tokenizer = small_tokenizer();
  const std::vector<std::string> strings = golden_strings();
  std::vector<std::vector<TokenId>> expected;
  for (const std::string& text : strings) expected.push_back(tokenizer.encode(text));
  std::atomic<size_t> wrong{0};
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&] {
        for (size_t s = 0; s < strings.size(); ++s)
          wrong += tokenizer.encode(strings[s]) != expected[s];
      });
    }
  }
  EXPECT_EQ(wrong.load(), 0U);
}

// ---- Meta's tokenizer.model

std::string tiktoken_text() {
  static constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (unsigned byte = 0; byte < 256; ++byte) {
    text += {kDigits[byte >> 2], kDigits[(byte & 3) << 4], '=', '='};
    text += " " + std::to_string(byte) + "\n";
  }
  return text;
}

TEST(TiktokenTest, AddsLlama3SpecialTokens) {
  auto tokenizer = Tokenizer::from_tiktoken(tiktoken_text() + "aGk= 256\n");  // "hi"
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message();
  EXPECT_EQ(tokenizer->vocab_size(), 257 + 256);
  EXPECT_THAT(tokenizer->encode("hi", {.add_bos = true}), ElementsAre(257, 256));
  EXPECT_EQ(tokenizer->token_bytes(257), "<|begin_of_text|>");
  EXPECT_EQ(tokenizer->token_bytes(257 + 9), "<|eot_id|>");
  EXPECT_EQ(tokenizer->token_bytes(257 + 255), "<|reserved_special_token_247|>");
  EXPECT_THAT(tokenizer->end_of_generation(), ElementsAre(257 + 1, 257 + 8, 257 + 9));
}

TEST(TiktokenTest, RefusesBadFiles) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "0x00"},
      {"aGk= 0\n", "0x00"},
      {tiktoken_text() + "aGk=256\n", "line 257: no space"},
      {tiktoken_text() + "a?k= 256\n", "no base64"},
      {tiktoken_text() + "aGk 256\n", "no base64"},
      {tiktoken_text() + "aGl= 256\n", "no base64"},  // bits left over
      {tiktoken_text() + "aGk= \n", "no number"},
      {tiktoken_text() + "aGk= 256x\n", "no number"},
      {tiktoken_text() + "aGk= 99999999999999999999\n", "no number"},
      {tiktoken_text() + "aGk= 257\n", "expected 256"},
      {tiktoken_text() + "aGk= 255\n", "expected 256"},
      {tiktoken_text() + "aGk= 256\naGk= 257\n", "the same"},
      {std::string("\n\x0e\n\x05<unk>\x15\0\0", 12), "SentencePiece"},
  };
  for (const auto& [text, message] : cases) {
    auto tokenizer = Tokenizer::from_tiktoken(text);
    ASSERT_FALSE(tokenizer.ok()) << message;
    EXPECT_THAT(tokenizer.error().message(), HasSubstr(message));
  }
}

// ---- tokenizer.json

TEST(TokenizerJsonTest, RefusesBadFilesByName) {
  const auto added = [](std::string_view fields) {
    return tiny_json("[]", "[{" + std::string(fields) + "}]");
  };
  const auto model = [](std::string_view more) { return tiny_json("[]", "[]", more); };
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "no valid JSON"},
      {"[1", "no valid JSON"},
      {std::string(100, '['), "no valid JSON"},
      {"[]", "not a JSON object"},
      {"{}", "'model'"},
      {R"({"model":{"type":"Unigram"}})", "'Unigram'"},
      {R"({"model":{"type":"BPE"}})", "pre_tokenizer"},
      {R"({"model":{},"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false}})",
       "model.vocab"},
      {R"({"model":{},"pre_tokenizer":{"type":"ByteLevel"}})", "add_prefix_space"},
      {R"({"model":{},"pre_tokenizer":{"type":"Whitespace"}})", "'Whitespace'"},
      {R"({"model":{},"pre_tokenizer":{"type":"Sequence"}})", "Sequence"},
      {R"({"model":{},"normalizer":{"type":"NFC"}})", "normalizer 'NFC'"},
      {tiny_json("[\"ab\"]"), "merges[0]"},
      {tiny_json("[\"a b\",\"a x\"]"), "merges[1]"},
      {tiny_json("[\"b a\"]"), "lacks"},
      {tiny_json("[[\"a\"]]"), "merges[0]"},
      {tiny_json("[\"a b\",\"a b\"]"), "there twice"},
      {tiny_json("null"), "model.merges"},
      {model(R"("byte_fallback":true,)"), "byte_fallback"},
      {model(R"("dropout":0.1,)"), "dropout"},
      {model(R"("end_of_word_suffix":"</w>",)"), "end_of_word_suffix"},
      {model(R"("unk_token":"a",)"), "unk_token"},
      {added(R"("id":9,"content":"<x>")"), "no token has the id 7"},
      {added(R"("id":-1,"content":"<x>")"), "not in 0"},
      {added(R"("id":99999999999,"content":"<x>")"), "not in 0"},
      {added(R"("id":"7","content":"<x>")"), "not in 0"},
      {added(R"("id":0,"content":"<x>")"), "contradicts"},
      {added(R"("id":7,"content":"abc")"), "contradicts"},
      {added(R"("id":7,"content":"")"), "no name"},
      {added(R"("id":7,"content":"<x>","lstrip":true)"), "lstrip"},
      {added(R"("id":7,"content":"<x>"},{"id":7,"content":"<y>")"), "contradicts"},
      {added(R"("id":7,"content":"<x>"},{"id":8,"content":"<x>")"), "same name"},
      {tiny_json("[]", "[7]"), "no object"},
  };
  for (const auto& [text, message] : cases) {
    auto tokenizer = Tokenizer::from_tokenizer_json(text);
    ASSERT_FALSE(tokenizer.ok()) << message << "\n" << text;
    EXPECT_THAT(tokenizer.error().message(), HasSubstr(message)) << text;
  }
}

TEST(TokenizerJsonTest, RefusesSplitPatternsItDoesNotKnow) {
  std::string json = read_whole_file(golden_path("small_tokenizer.json"));
  const size_t at = json.find("{1,3}");
  json.replace(at, 5, "{1,4}");
  auto tokenizer = Tokenizer::from_tokenizer_json(json);
  ASSERT_FALSE(tokenizer.ok());
  EXPECT_THAT(tokenizer.error().message(), HasSubstr("{1,4}"));
}

TEST(TokenizerJsonTest, MergesThatMakeASpecialTokenAreRefused) {
  auto tokenizer = Tokenizer::from_tokenizer_json(
      tiny_json(R"(["a b"])", R"([{"id":3,"content":"ab","special":true}])"));
  ASSERT_FALSE(tokenizer.ok());
  EXPECT_THAT(tokenizer.error().message(), HasSubstr("merges[0]"));
}

// ---- a Hugging Face folder

class FolderTest : public testing::Test {
 protected:
  FolderTest() {
    folder_ = testing::TempDir() + "/puna_tokenizer_" + std::to_string(getpid());
    std::filesystem::create_directories(folder_);
  }
  ~FolderTest() override { std::filesystem::remove_all(folder_); }

  void write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ + "/" + name, std::ios::binary) << text;
  }
  Result<Tokenizer> load() const { return Tokenizer::load({.gguf = nullptr, .folder = folder_}); }

  std::string folder_;
};

TEST_F(FolderTest, ReadsTheFilesBesideTheVocabulary) {
  write("tokenizer.json", tiny_json(R"(["a b"])", R"([{"id":7,"content":"<x>","special":true},
                                                      {"id":8,"content":"<y>","special":true}])"));
  write("tokenizer_config.json", R"({"bos_token":{"content":"<x>"},"eos_token":"<y>",)"
                                 R"("add_bos_token":true,"chat_template":"T"})");
  write("generation_config.json", R"({"eos_token_id":[8,2]})");
  auto tokenizer = load();
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message();
  EXPECT_THAT(tokenizer->encode("ab", {.add_bos = true}), ElementsAre(7, 3));
  EXPECT_EQ(tokenizer->eos(), TokenId{8});
  EXPECT_THAT(tokenizer->end_of_generation(), ElementsAre(2, 8));
  EXPECT_EQ(tokenizer->chat_template(), "T");
  write("chat_template.jinja", "J");
  EXPECT_EQ(load()->chat_template(), "J");
  write("tokenizer_config.json", R"({"chat_template":[{"name":"rag","template":"R"},
                                                      {"name":"default","template":"D"}]})");
  std::filesystem::remove(folder_ + "/chat_template.jinja");
  EXPECT_EQ(load()->chat_template(), "D");
}

TEST_F(FolderTest, ReadsMetasFileWhereThereIsNoJson) {
  write("tokenizer.model", tiktoken_text());
  auto tokenizer = load();
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message();
  EXPECT_EQ(tokenizer->vocab_size(), 512);
}

TEST_F(FolderTest, ErrorsNameTheFolderAndTheFile) {
  const auto expect_error = [&](std::string_view what) {
    auto tokenizer = load();
    ASSERT_FALSE(tokenizer.ok()) << what;
    EXPECT_THAT(tokenizer.error().message(),
                testing::AllOf(HasSubstr(folder_), HasSubstr(std::string(what))));
  };
  expect_error("neither tokenizer.json nor tokenizer.model");
  write("tokenizer.json", "{");
  expect_error("tokenizer.json");
  write("tokenizer.json", tiny_json("[]"));
  write("generation_config.json", R"({"eos_token_id":7})");
  expect_error("generation_config.json");
  write("generation_config.json", "[]");
  expect_error("generation_config.json");
  write("generation_config.json", "{}");
  write("tokenizer_config.json", R"({"eos_token":"<nothing>"})");
  expect_error("<nothing>");
  write("tokenizer_config.json", R"({"add_bos_token":true})");
  expect_error("beginning-of-text");
}

}  // namespace
}  // namespace puna::model
