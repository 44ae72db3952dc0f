// SPDX-License-Identifier: Apache-2.0
// imatrix files: what is written is read again, and damaged ones are refused.
#include "quant/importance.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <vector>

namespace puna::quant {
namespace {

class Importance : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/puna_importance_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string path(const std::string& name) const { return folder_ + "/" + name; }

  std::string folder_;
};

ImportanceMatrix sample() {
  ImportanceMatrix matrix;
  matrix.entries["blk.0.attn_q.weight"] = {{0.5F, 2.0F, 0.0F, 8.0F}, 1024};
  matrix.entries["blk.1.ffn_down.weight"] = {{1.0F, 3.0F}, 1000};
  matrix.datasets = {"mixture.txt"};
  matrix.chunks = 2;
  matrix.chunk_tokens = 512;
  return matrix;
}

TEST_F(Importance, SurvivesBothFormats) {
  for (const char* name : {"a.gguf", "a.dat"}) {
    ASSERT_TRUE(write_importance(sample(), path(name)).ok());
    const auto read = read_importance(path(name));
    ASSERT_TRUE(read.ok()) << read.error().message();
    EXPECT_EQ(read->chunks, 2U);
    EXPECT_EQ(read->datasets, sample().datasets);
    ASSERT_EQ(read->entries.size(), 2U);
    for (const auto& [weight, entry] : sample().entries) {
      ASSERT_NE(read->find(weight), nullptr);
      for (size_t i = 0; i < entry.mean_squares.size(); ++i) {
        EXPECT_FLOAT_EQ((*read->find(weight))[i], entry.mean_squares[i]);
      }
    }
    EXPECT_EQ(read->find("blk.9.attn_q.weight"), nullptr);
  }
  for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
    EXPECT_NE(entry.path().extension(), ".partial");
  }
}

// Files made by tools/golden/make_imatrix_golden.py.
TEST_F(Importance, UnderstandsLlamaImatrix) {
  for (const char* name : {"sums.gguf", "calls.dat"}) {
    const auto read = read_importance(std::string(PUNA_GOLDEN_DIR) + "/imatrix/" + name);
    ASSERT_TRUE(read.ok()) << read.error().message();
    EXPECT_EQ(read->chunks, 3U);
    EXPECT_EQ(read->datasets, std::vector<std::string>{"wiki.txt"});
    const auto found = read->entries.find("blk.0.attn_q.weight");
    ASSERT_NE(found, read->entries.end());
    EXPECT_EQ(found->second.tokens, 1536U);
    ASSERT_EQ(found->second.mean_squares.size(), 8U);
    for (size_t i = 0; i < 8; ++i) {
      EXPECT_FLOAT_EQ(found->second.mean_squares[i], static_cast<float>(1 + i) / 4.0F);
    }
  }
}

TEST_F(Importance, EveryCutIsRefused) {
  ASSERT_TRUE(write_importance(sample(), path("a.dat")).ok());
  std::ifstream file(path("a.dat"), std::ios::binary);
  const std::string whole{std::istreambuf_iterator<char>(file), {}};
  const size_t entries_end = whole.size() - 4 - 4 - sample().datasets[0].size();
  for (size_t length = 0; length < whole.size(); ++length) {
    if (length == entries_end || length == entries_end + 4) continue;  // older files end there
    std::ofstream(path("cut.dat"), std::ios::binary) << whole.substr(0, length);
    EXPECT_FALSE(read_importance(path("cut.dat")).ok()) << length;
  }
}

TEST_F(Importance, NumbersThatAreNoneAreRefused) {
  for (const float bad :
       {-1.0F, std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    ImportanceMatrix matrix = sample();
    matrix.entries["blk.0.attn_q.weight"].mean_squares[2] = bad;
    for (const char* name : {"bad.gguf", "bad.dat"}) {
      ASSERT_TRUE(write_importance(matrix, path(name)).ok());
      const auto read = read_importance(path(name));
      ASSERT_FALSE(read.ok());
      EXPECT_EQ(read.error().code(), ErrorCode::kCorrupt);
    }
  }
}

TEST_F(Importance, OtherFilesAreRefused) {
  EXPECT_FALSE(read_importance(path("missing")).ok());
  std::ofstream(path("text")) << "this is no importance matrix at all, just some text";
  EXPECT_FALSE(read_importance(path("text")).ok());
  EXPECT_FALSE(read_importance(std::string(PUNA_GOLDEN_DIR) + "/tiny_llama_gguf/tiny.gguf").ok());
}

}  // namespace
}  // namespace puna::quant
