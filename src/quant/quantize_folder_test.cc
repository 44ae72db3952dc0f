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
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "quant/dequant.h"
#include "quant/fp8.h"
#include "quant/test_files.h"

namespace puna::quant {
namespace {

using formats::Checkpoint;
using formats::WeightRole;

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

// Norm times weight is what it was, and so is value times output: AWQ's scales cancel out.
TEST_F(QuantizeFolder, ByAwqTheProductsStay) {
  const Checkpoint from = open(golden("tiny_llama_hf"));
  const formats::ModelSpec& spec = from.spec();
  std::vector<float> products;
  const std::string out = folder_ + "/awq";
  const auto report =
      quantize_folder(from, out,
                      {.products_of = [&](formats::WeightId id) -> Result<std::span<const float>> {
                         const auto columns = static_cast<size_t>(from.tensor(id).columns);
                         products.assign(columns * columns, 0.0F);
                         for (size_t i = 0; i < columns; ++i)
                           products[i * columns + i] = i % 7 == 2 ? 900.0F : 1.0F;
                         return std::span<const float>(products);
                       },
                       .threads = 2});
  ASSERT_TRUE(report.ok()) << report.error().message();
  const Checkpoint to = open(out);
  const auto hidden = static_cast<size_t>(spec.hidden_size);
  const auto error_of = [](const std::vector<float>& a, const std::vector<float>& b) {
    double error = 0.0;
    double squares = 0.0;
    for (size_t i = 0; i < a.size(); ++i) {
      const auto x = static_cast<double>(a[i]);
      error += (x - static_cast<double>(b[i])) * (x - static_cast<double>(b[i]));
      squares += x * x;
    }
    return error / squares;
  };
  const auto read_by = [&](const Checkpoint& model, WeightRole norm, WeightRole role) {
    const std::vector<float> gains = values_of(model.tensor({norm, 1}));
    std::vector<float> values = values_of(model.tensor({role, 1}));
    for (size_t i = 0; i < values.size(); ++i) values[i] *= gains[i % hidden];
    return values;
  };
  EXPECT_NE(values_of(to.tensor({WeightRole::kAttnNorm, 1})),
            values_of(from.tensor({WeightRole::kAttnNorm, 1})));
  for (const auto& [norm, role] : {std::pair(WeightRole::kAttnNorm, WeightRole::kAttnQ),
                                   std::pair(WeightRole::kAttnNorm, WeightRole::kAttnK),
                                   std::pair(WeightRole::kFfnNorm, WeightRole::kFfnGate)}) {
    EXPECT_LT(error_of(read_by(from, norm, role), read_by(to, norm, role)), 0.03);
  }
  // [column of the reader, input of the maker] of the first input: reader * maker * gain.
  const auto through = [&](const Checkpoint& model, WeightRole norm, WeightRole maker,
                           WeightRole reader, int64_t heads_per_kv) {
    const std::vector<float> made = read_by(model, norm, maker);
    const formats::TensorView& view = model.tensor({reader, 1});
    const std::vector<float> values = values_of(view);
    std::vector<float> result;
    for (int64_t i = 0; i < view.rows * view.columns; ++i) {
      const int64_t column = i % view.columns;
      const int64_t row =
          heads_per_kv == 0
              ? column
              : column / spec.head_dim / heads_per_kv * spec.head_dim + column % spec.head_dim;
      result.push_back(values[static_cast<size_t>(i)] *
                       made[static_cast<size_t>(row) * hidden + static_cast<size_t>(i) % hidden]);
    }
    return result;
  };
  const auto error_through = [&](WeightRole norm, WeightRole maker, WeightRole reader,
                                 int64_t heads_per_kv) {
    return error_of(through(from, norm, maker, reader, heads_per_kv),
                    through(to, norm, maker, reader, heads_per_kv));
  };
  EXPECT_LT(error_through(WeightRole::kAttnNorm, WeightRole::kAttnV, WeightRole::kAttnOutput,
                          spec.num_heads / spec.num_kv_heads),
            0.06);
  EXPECT_LT(error_through(WeightRole::kFfnNorm, WeightRole::kFfnUp, WeightRole::kFfnDown, 0), 0.06);
}

TEST_F(QuantizeFolder, ThrowsAwayOnlyItsOwnLeftOvers) {
  const Checkpoint from = open(golden("tiny_llama_hf"));
  const std::string out = folder_ + "/out";
  std::filesystem::create_directory(out + ".partial");
  std::ofstream(out + ".partial/thesis.txt") << "years of work";
  auto report = quantize_folder(from, out, {});
  ASSERT_FALSE(report.ok());
  EXPECT_EQ(report.error().code(), ErrorCode::kInvalidArgument);
  EXPECT_TRUE(std::filesystem::exists(out + ".partial/thesis.txt"));
  EXPECT_FALSE(std::filesystem::exists(out));

  // Killed in the middle: copied here while it was being written.
  std::filesystem::remove_all(out + ".partial");
  report = quantize_folder(from, out, {.progress = [&](uint64_t, uint64_t) {
                             std::filesystem::copy(out + ".partial", folder_ + "/killed");
                             return false;
                           }});
  ASSERT_FALSE(report.ok());
  std::filesystem::rename(folder_ + "/killed", out + ".partial");
  report = quantize_folder(from, out, {});
  ASSERT_TRUE(report.ok()) << report.error().message();
  EXPECT_FALSE(std::filesystem::exists(out + ".partial"));
  for (const auto& entry : std::filesystem::directory_iterator(out)) {
    EXPECT_NE(entry.path().filename().string().front(), '.') << entry.path();
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
