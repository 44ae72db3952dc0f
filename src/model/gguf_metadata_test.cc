// SPDX-License-Identifier: Apache-2.0
// A Hugging Face folder's tokenizer and settings, written as GGUF metadata, mean the same.
#include "model/gguf_metadata.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "formats/gguf.h"
#include "model/tokenizer.h"

namespace puna::model {
namespace {

class GgufMetadata : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/puna_metadata_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  // A file of `checkpoint`'s metadata and one small tensor.
  formats::GgufFile rewritten(const formats::Checkpoint& checkpoint) {
    formats::GgufWriter writer(folder_ + "/out.gguf", {});
    const auto set = set_gguf_metadata(checkpoint, writer);
    EXPECT_TRUE(set.ok()) << (set.ok() ? "" : set.error().message());
    EXPECT_TRUE(writer.add_tensor("t", formats::TensorType::kF32, {1}).ok());
    EXPECT_TRUE(writer.begin().ok());
    const float zero = 0.0F;
    EXPECT_TRUE(writer.write(std::as_bytes(std::span(&zero, 1))).ok());
    EXPECT_TRUE(writer.finish().ok());
    auto file = formats::GgufFile::open(folder_ + "/out.gguf");
    EXPECT_TRUE(file.ok()) << file.error().message();
    return std::move(file).value();
  }

  std::string folder_;
};

formats::Checkpoint open(const std::string& name) {
  auto opened = formats::Checkpoint::open(std::string(PUNA_GOLDEN_DIR) + "/" + name);
  EXPECT_TRUE(opened.ok()) << opened.error().message();
  return std::move(opened).value();
}

TEST_F(GgufMetadata, TokenizesAlike) {
  for (const char* name : {"tiny_llama_hf", "tiny_llama_hf_tied", "tiny_llama_gguf/tiny.gguf"}) {
    const formats::Checkpoint checkpoint = open(name);
    auto from = Tokenizer::load(checkpoint.tokenizer_source());
    ASSERT_TRUE(from.ok()) << from.error().message();
    auto to = Tokenizer::from_gguf(rewritten(checkpoint));
    ASSERT_TRUE(to.ok()) << to.error().message();
    for (const char* text : {"Hello world", "  two  spaces\n\n12345 + \xC3\xA9\xE2\x82\xAC!",
                             "<|begin_of_text|>x<|eot_id|>", "\x01\x7F\t"}) {
      const EncodeOptions options = {.add_bos = true, .parse_special = true};
      EXPECT_EQ(to->encode(text, options), from->encode(text, options)) << name << ": " << text;
    }
    EXPECT_EQ(to->bos(), from->bos());
    EXPECT_EQ(to->eos(), from->eos());
    EXPECT_EQ(to->adds_bos(), from->adds_bos());
    EXPECT_EQ(to->chat_template(), from->chat_template());
    EXPECT_EQ(
        std::vector<TokenId>(to->end_of_generation().begin(), to->end_of_generation().end()),
        std::vector<TokenId>(from->end_of_generation().begin(), from->end_of_generation().end()));
    for (TokenId id = 0; id < from->vocab_size(); ++id) {
      ASSERT_EQ(to->token_bytes(id), from->token_bytes(id)) << id;
      ASSERT_EQ(to->is_special(id), from->is_special(id)) << id;
    }
  }
}

TEST_F(GgufMetadata, LeavesOutWhatTheWeightsDecide) {
  const formats::GgufFile file = rewritten(open("tiny_llama_gguf/tiny.gguf"));
  EXPECT_EQ(file.find("general.file_type"), nullptr);
  EXPECT_EQ(file.find("general.quantization_version"), nullptr);
  EXPECT_EQ(file.get_string("general.architecture").value_or(""), "llama");
}

TEST_F(GgufMetadata, HasARowForEveryToken) {
  const formats::Checkpoint checkpoint = open("tiny_llama_hf");
  const formats::GgufFile file = rewritten(checkpoint);
  ASSERT_NE(file.get_array("tokenizer.ggml.tokens"), nullptr);
  EXPECT_EQ(file.get_array("tokenizer.ggml.tokens")->values.size(),
            static_cast<size_t>(checkpoint.spec().vocab_size));
}

}  // namespace
}  // namespace puna::model
