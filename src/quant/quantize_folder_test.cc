// SPDX-License-Identifier: Apache-2.0
// compressed-tensors folders: Puna reads what it wrote, every code is the nearest, and a failure
// leaves nothing.
#include "quant/quantize_folder.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <boost/json.hpp>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "quant/dequant.h"
#include "quant/fp8.h"

namespace puna::quant {
namespace {

using formats::Checkpoint;
using formats::WeightRole;

std::string golden(const std::string& name) { return std::string(PUNA_GOLDEN_DIR) + "/" + name; }

Checkpoint open(const std::string& path) {
  auto opened = Checkpoint::open(path);
  EXPECT_TRUE(opened.ok()) << opened.error().message();
  return std::move(opened).value();
}

std::vector<float> values_of(const formats::TensorView& view) {
  std::vector<float> values(static_cast<size_t>(view.rows * view.columns));
  dequantize(view.type, view.data, values);
  return values;
}

class QuantizeFolder : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/puna_out_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string folder_;
};

struct Expected {
  const char* name;
  double relative_error;  // of a linear layer, squared, at most
  const char* format;
};
constexpr Expected kSchemes[] = {{"FP8_DYNAMIC", 1.2e-3, "float-quantized"},
                                 {"w8a8", 2e-4, "int-quantized"},
                                 {"W4A16", 1.6e-2, "pack-quantized"}};

TEST_F(QuantizeFolder, IsReadAgain) {
  const Checkpoint from = open(golden("tiny_llama_hf"));
  for (const Expected& expected : kSchemes) {
    SCOPED_TRACE(expected.name);
    const std::string out = folder_ + "/" + expected.name;
    const auto report =
        quantize_folder(from, out, {.scheme = *find_folder_scheme(expected.name), .threads = 3});
    ASSERT_TRUE(report.ok()) << report.error().message();
    const Checkpoint to = open(out);
    for (const WeightRole role : {WeightRole::kAttnQ, WeightRole::kFfnDown}) {
      const std::vector<float> a = values_of(from.tensor({role, 1}));
      const std::vector<float> b = values_of(to.tensor({role, 1}));
      ASSERT_EQ(a.size(), b.size());
      double error = 0.0;
      double squares = 0.0;
      for (size_t i = 0; i < a.size(); ++i) {
        const auto x = static_cast<double>(a[i]);
        error += (x - static_cast<double>(b[i])) * (x - static_cast<double>(b[i]));
        squares += x * x;
      }
      EXPECT_LT(error / squares, expected.relative_error);
      EXPECT_GT(error / squares, 1e-7);
    }
    EXPECT_EQ(values_of(to.tensor({WeightRole::kTokenEmbedding})),
              values_of(from.tensor({WeightRole::kTokenEmbedding})));
    std::ifstream config(out + "/config.json");
    const auto json = boost::json::parse(std::string{std::istreambuf_iterator<char>(config), {}});
    EXPECT_EQ(json.at("quantization_config").at("format").as_string(), expected.format);
    EXPECT_TRUE(std::filesystem::exists(out + "/tokenizer.json"));
    EXPECT_FALSE(std::filesystem::exists(out + "/model.safetensors.index.json"));
    EXPECT_FALSE(std::filesystem::exists(out + ".partial"));
  }
}

TEST_F(QuantizeFolder, FailuresLeaveNothing) {
  const Checkpoint from = open(golden("tiny_llama_hf"));
  const std::string out = folder_ + "/out";
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);  // write() says EFBIG instead
  const rlimit small = {16384, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  auto report = quantize_folder(from, out, {.scheme = FolderScheme::kW8A8});
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, old_handler);
  ASSERT_FALSE(report.ok());
  EXPECT_EQ(report.error().code(), ErrorCode::kIo) << report.error().message();
  EXPECT_TRUE(std::filesystem::is_empty(folder_));

  report = quantize_folder(from, out, {.progress = [](uint64_t, uint64_t) { return false; }});
  EXPECT_FALSE(report.ok());
  report = quantize_folder(open(golden("tiny_llama_gguf/tiny.gguf")), out, {});
  ASSERT_FALSE(report.ok());
  EXPECT_EQ(report.error().code(), ErrorCode::kUnsupported);
  EXPECT_TRUE(std::filesystem::is_empty(folder_));

  std::filesystem::create_directory(out);
  report = quantize_folder(from, out, {});
  ASSERT_FALSE(report.ok());
  EXPECT_EQ(report.error().code(), ErrorCode::kInvalidArgument);
}

TEST(Fp8, EveryCodeSurvives) {
  for (int code = 0; code < 256; ++code) {
    if ((code & 0x7F) == 0x7F) {
      EXPECT_TRUE(std::isnan(fp8_value(static_cast<uint8_t>(code))));
      continue;
    }
    EXPECT_EQ(to_fp8(fp8_value(static_cast<uint8_t>(code))), code);
  }
  EXPECT_EQ(fp8_value(0x7E), 448.0F);
  EXPECT_EQ(fp8_value(0x01), 0x1p-9F);
  EXPECT_EQ(to_fp8(1e30F), 0x7E);
  EXPECT_EQ(to_fp8(-500.0F), 0xFE);
}

TEST(Fp8, RoundsToTheNearest) {
  std::mt19937_64 random(1);
  std::uniform_real_distribution<float> exponents(-12.0F, 9.0F);
  for (int i = 0; i < 20000; ++i) {
    const float value = std::exp2(exponents(random)) * (i % 2 == 0 ? 1.0F : -1.0F);
    const float found = fp8_value(to_fp8(value));
    float best = 1e9F;
    for (int code = 0; code < 256; ++code) {
      const float candidate = fp8_value(static_cast<uint8_t>(code));
      if (!std::isnan(candidate)) best = std::min(best, std::fabs(candidate - value));
    }
    ASSERT_EQ(std::fabs(found - value), best) << value;
  }
}

}  // namespace
}  // namespace puna::quant
