// SPDX-License-Identifier: Apache-2.0
// What calibration adds up is what really enters each matrix.
#include "model/calibration.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "model/input_products.h"
#include "quant/dequant.h"

namespace puna::model {
namespace {

formats::Checkpoint open(const std::string& name) {
  auto opened = formats::Checkpoint::open(std::string(PUNA_GOLDEN_DIR) + "/" + name);
  EXPECT_TRUE(opened.ok()) << opened.error().message();
  return std::move(opened).value();
}

CalibrationText some_tokens(int32_t count, int32_t vocab_size) {
  CalibrationText text{"numbers", {}};
  for (int32_t i = 0; i < count; ++i) text.tokens.push_back((i * 37 + 11) % vocab_size);
  return text;
}

// The first layer's q, k and v read the normed embedding: computed here by hand.
TEST(Calibration, MeansOfTheFirstLayerAreTheNormedEmbedding) {
  const formats::Checkpoint checkpoint = open("tiny_llama_hf");
  const formats::ModelSpec& spec = checkpoint.spec();
  const CalibrationText text = some_tokens(64, spec.vocab_size);
  const auto matrix = collect_importance(checkpoint, text, {.chunk_tokens = 32, .threads = 2});
  ASSERT_TRUE(matrix.ok()) << matrix.error().message();

  const auto columns = static_cast<size_t>(spec.hidden_size);
  const auto values_of = [](const formats::TensorView& view) {
    std::vector<float> values(static_cast<size_t>(view.rows * view.columns));
    quant::dequantize(view.type, view.data, values);
    return values;
  };
  const auto table = values_of(checkpoint.tensor({formats::WeightRole::kTokenEmbedding}));
  const auto norm = values_of(checkpoint.tensor({formats::WeightRole::kAttnNorm, 0}));
  std::vector<double> expected(columns);
  for (const TokenId token : text.tokens) {
    const float* row = &table[static_cast<size_t>(token) * columns];
    double squares = 0.0;
    for (size_t i = 0; i < columns; ++i)
      squares += static_cast<double>(row[i]) * static_cast<double>(row[i]);
    const double mean =
        squares / static_cast<double>(columns) + static_cast<double>(spec.rms_norm_eps);
    for (size_t i = 0; i < columns; ++i) {
      const double x = static_cast<double>(row[i]) * static_cast<double>(norm[i]);
      expected[i] += x * x / mean / static_cast<double>(text.tokens.size());
    }
  }
  for (const char* name : {"blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.0.attn_v.weight"}) {
    const std::vector<float>* found = matrix->find(name);
    ASSERT_NE(found, nullptr) << name;
    ASSERT_EQ(found->size(), columns);
    for (size_t i = 0; i < columns; ++i) {
      EXPECT_NEAR(static_cast<double>((*found)[i]), expected[i], 1e-4 * expected[i] + 1e-9);
    }
  }
  EXPECT_EQ(matrix->chunks, 2U);
  EXPECT_EQ(matrix->entries.at("blk.0.attn_q.weight").tokens, 64U);
}

TEST(Calibration, HasEveryMatrixButTheHead) {
  const formats::Checkpoint checkpoint = open("tiny_llama_gguf/tiny.gguf");
  const formats::ModelSpec& spec = checkpoint.spec();
  const auto matrix =
      collect_importance(checkpoint, some_tokens(32, spec.vocab_size), {.chunk_tokens = 32});
  ASSERT_TRUE(matrix.ok()) << matrix.error().message();
  EXPECT_EQ(matrix->entries.size(), static_cast<size_t>(spec.num_layers) * 7);
  EXPECT_EQ(matrix->find("output.weight"), nullptr);
  for (const auto& [name, entry] : matrix->entries) {
    EXPECT_EQ(entry.tokens, 32U) << name << ": rows without logits count in the last layer too";
    const std::vector<float>* means = matrix->find(name);
    EXPECT_GT(*std::max_element(means->begin(), means->end()), 0.0F) << name;
  }
  const auto* down = matrix->find("blk.0.ffn_down.weight");
  ASSERT_NE(down, nullptr);
  EXPECT_EQ(down->size(), static_cast<size_t>(spec.intermediate_size));
}

TEST(Calibration, ThreadsChangeNothing) {
  const formats::Checkpoint checkpoint = open("tiny_llama_hf");
  const CalibrationText text = some_tokens(32, checkpoint.spec().vocab_size);
  const auto one = collect_importance(checkpoint, text, {.chunk_tokens = 32, .threads = 1});
  const auto three = collect_importance(checkpoint, text, {.chunk_tokens = 32, .threads = 3});
  ASSERT_TRUE(one.ok() && three.ok());
  for (const auto& [name, entry] : one->entries) EXPECT_EQ(*three->find(name), entry.mean_squares);
}

// The factors lead back to the products: H^-1 = U^T * U. One layer at a time gives the same.
TEST(Calibration, GptqIsToldOfEveryMatrix) {
  const formats::Checkpoint checkpoint = open("tiny_llama_hf");
  const formats::ModelSpec& spec = checkpoint.spec();
  const CalibrationText text = some_tokens(96, spec.vocab_size);
  const CalibrationOptions options = {.chunk_tokens = 32, .threads = 2};
  InputProducts all(checkpoint, text, options);
  InputProducts one_by_one(checkpoint, text, options, /*budget_bytes=*/1);
  for (int32_t layer = 0; layer < spec.num_layers; ++layer) {
    for (const formats::WeightRole role :
         {formats::WeightRole::kAttnQ, formats::WeightRole::kAttnV,
          formats::WeightRole::kAttnOutput, formats::WeightRole::kFfnUp,
          formats::WeightRole::kFfnDown}) {
      const auto a = all.factor({role, layer});
      ASSERT_TRUE(a.ok()) << a.error().message();
      const auto b = one_by_one.factor({role, layer});
      ASSERT_TRUE(b.ok()) << b.error().message();
      EXPECT_EQ((*a)->columns(), checkpoint.tensor({role, layer}).columns);
      const auto columns = static_cast<size_t>((*a)->columns());
      std::vector<float> row(columns);
      for (size_t i = 0; i < columns; ++i) row[i] = std::sin(static_cast<float>(i));
      std::vector<float> other = row;
      std::vector<BFloat16> scales(columns / 32);
      std::vector<int8_t> codes(columns);
      std::vector<int8_t> other_codes(columns);
      (*a)->round_row(row, 32, scales, codes);
      (*b)->round_row(other, 32, scales, other_codes);
      EXPECT_EQ(codes, other_codes);
    }
  }
}

TEST(Calibration, TooLittleTextIsRefused) {
  const formats::Checkpoint checkpoint = open("tiny_llama_hf");
  const auto matrix = collect_importance(checkpoint, some_tokens(31, 64), {.chunk_tokens = 32});
  ASSERT_FALSE(matrix.ok());
  EXPECT_EQ(matrix.error().code(), ErrorCode::kInvalidArgument);
}

TEST(Calibration, ReadsConversationsAndText) {
  auto tokenizer = Tokenizer::load(open("tiny_llama_hf").tokenizer_source());
  ASSERT_TRUE(tokenizer.ok());
  std::string pattern = testing::TempDir() + "/puna_calibration_XXXXXX";
  ASSERT_NE(mkdtemp(pattern.data()), nullptr);
  const std::string path = pattern + "/text";
  std::ofstream(path) << "plain words\n{\"text\": \"x\"}\n";
  auto text = read_calibration_text(path, *tokenizer, nullptr);
  ASSERT_TRUE(text.ok());
  const EncodeOptions options = {.add_bos = true};
  EXPECT_EQ(text->tokens, tokenizer->encode("plain words\n{\"text\": \"x\"}\n", options));
  std::ofstream(path) << "{\"text\": \"one\"}\n\n{\"messages\": [{\"role\": \"user\", "
                         "\"content\": \"two\"}]}\n";
  text = read_calibration_text(path, *tokenizer, nullptr);
  ASSERT_TRUE(text.ok());
  std::vector<TokenId> expected = tokenizer->encode("one", options);
  const std::vector<TokenId> second = tokenizer->encode("two\n\n", options);
  expected.insert(expected.end(), second.begin(), second.end());
  EXPECT_EQ(text->tokens, expected);
  EXPECT_EQ(text->name, "text");
  std::filesystem::remove_all(pattern);
}

// Three chunks at least, whatever the tokenizer, or the default would calibrate nothing.
TEST(Calibration, TheDefaultTextIsLongEnough) {
  auto tokenizer = Tokenizer::load(open("tiny_llama_hf").tokenizer_source());
  ASSERT_TRUE(tokenizer.ok());
  EXPECT_GE(default_calibration_text(*tokenizer, nullptr).tokens.size(), 3U * 512U);
}

}  // namespace
}  // namespace puna::model
