// SPDX-License-Identifier: Apache-2.0
// What products were tuned to, taken up again by the next start: with the same bits, and only if it
// still holds.
#include <gtest/gtest.h>

#include <filesystem>

#include "formats/test_files.h"
#include "kernels/cuda/gated_product.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/gemm_swiglu.h"
#include "kernels/cuda/row_kernels.h"
#include "kernels/cuda/test_device.h"

namespace puna::kernels::cuda {
namespace {

constexpr const char* kMachine = "this GPU";
constexpr int32_t kRows = 300;
constexpr GemmShape kShape = {.outputs = 960, .columns = 576, .f32_out = true};

class TuningTest : public testing::Test {
 protected:
  TuningTest() {
    fill_random(weight_.data(), kShape.outputs * kShape.columns, 1, 0.02F, RandomValues::kOfFloat16,
                nullptr);
    fill_random(x_.data(), padded_rows(kRows) * kShape.columns, 2, 1.0F, RandomValues::kOfFloat16,
                nullptr);
  }

  // A start: what it prepared, and the results of all rows.
  std::unique_ptr<Gemm> start(const std::string& machine = kMachine, int32_t max_rows = kRows) {
    auto library = GemmLibrary::open(folder_.path(), machine);
    EXPECT_TRUE(library.ok());
    const Float16* weights[] = {weight_.data()};
    auto gemm = (*library)->prepare(
        kShape, max_rows,
        {.weights = weights, .x = x_.data(), .out = out_.data(), .stream = nullptr});
    EXPECT_TRUE(gemm.ok());
    EXPECT_EQ((*library)->tunings().problem(), "");
    libraries_.push_back(*library);
    EXPECT_EQ(cudaMemset(out_.data(), 0xFF, room() * sizeof(float)), cudaSuccess);
    (*gemm)->run(x_.data(), weight_.data(), out_.data(), max_rows, nullptr);
    return std::move(*gemm);
  }
  std::vector<float> results() const {
    std::vector<float> all = out_.values();
    all.resize(static_cast<size_t>(kRows * kShape.outputs));
    return all;
  }
  std::string only_file() const {
    const std::filesystem::directory_iterator files(folder_.path());
    EXPECT_EQ(std::distance(begin(files), end(files)), 1);
    return std::filesystem::directory_iterator(folder_.path())->path();
  }
  static size_t room() { return static_cast<size_t>(padded_rows(kRows) * kShape.outputs); }

  formats::ScratchFolder folder_;
  DeviceArray<Float16> weight_{static_cast<size_t>(kShape.outputs * kShape.columns)};
  DeviceArray<Float16> x_{static_cast<size_t>(padded_rows(kRows) * kShape.columns)};
  DeviceArray<float> out_{room()};
  std::vector<std::shared_ptr<GemmLibrary>> libraries_;  // which their products use
};

TEST_F(TuningTest, TheNextStartHasTheSameChoicesAndBits) {
  const auto first = start();
  EXPECT_FALSE(first->recalled());
  const auto wanted = results();
  const auto second = start();
  EXPECT_TRUE(second->recalled());
  EXPECT_EQ(results(), wanted);
  EXPECT_NE(second->summary().find(" as it was kept, 1: "), std::string::npos) << second->summary();
  EXPECT_TRUE(start(kMachine, 100)->recalled()) << "fewer rows are among them";
  EXPECT_FALSE(start("another driver")->recalled());
}

TEST_F(TuningTest, MoreRowsAreTunedAgain) {
  EXPECT_FALSE(start(kMachine, 100)->recalled());
  EXPECT_FALSE(start()->recalled());
  EXPECT_TRUE(start()->recalled());
}

// Each word of the first row count's choice, and of one whose rows are their own, is damaged in
// turn: either it still means an algorithm with the right bits, or all is tuned again.
TEST_F(TuningTest, WhatDoesNotHoldIsTunedAgain) {
  (void)start();
  const auto wanted = results();
  const std::string path = only_file();
  const std::string whole = formats::read_text(path);
  int tuned_again = 0;
  for (const std::string_view rows : {"\n1 ", "\n256 "}) {
    const size_t line = whole.find(rows) + rows.size();
    for (size_t at = line; whole[at] != '\n'; ++at) {
      if (whole[at] == ' ') continue;
      std::string damaged = whole;
      damaged[at] = whole[at] == 'f' ? '0' : 'f';
      formats::write_text(path, damaged);
      const auto gemm = start();
      tuned_again += gemm->recalled() ? 0 : 1;
      ASSERT_EQ(results(), wanted) << at - line << " in" << rows;
      if (!gemm->recalled()) {
        EXPECT_TRUE(start()->recalled()) << "it was kept again";
      }
    }
  }
  EXPECT_GT(tuned_again, 0);
  std::printf("%d of the damaged files were tuned again\n", tuned_again);
}

TEST_F(TuningTest, TheWayOfAGatedProductIsKeptToo) {
  constexpr int64_t kInner = 256;
  constexpr int64_t kColumns = 512;
  constexpr int32_t kMany = 2000;
  if (!swiglu_gemm_supports(kInner, kColumns)) GTEST_SKIP() << "one way only on this GPU";
  const auto room = static_cast<size_t>(padded_rows(kMany));
  DeviceArray<Float16> weight(2 * kInner * kColumns);
  DeviceArray<Float16> x(room * kColumns);
  DeviceArray<Float16> between(room * 2 * kInner);
  DeviceArray<Float16> out(room * kInner);
  fill_random(weight.data(), 2 * kInner * kColumns, 1, 0.03F, RandomValues::kOfFloat16, nullptr);
  fill_random(x.data(), static_cast<int64_t>(room) * kColumns, 2, 1.0F, RandomValues::kOfFloat16,
              nullptr);
  const auto fused = [&] {
    auto library = GemmLibrary::open(folder_.path(), kMachine);
    EXPECT_TRUE(library.ok());
    const Float16* weights[] = {weight.data()};
    auto product = GatedProduct::prepare(
        **library, kInner, kColumns, kMany,
        {.x = x.data(), .between = between.data(), .activated = out.data()}, weights, nullptr);
    EXPECT_TRUE(product.ok());
    std::string ways;
    for (int32_t rows = padded_rows(257); rows <= padded_rows(kMany); rows = padded_rows(rows + 1))
      ways += (*product)->fused(rows) ? '1' : '2';
    return ways;
  };
  (void)fused();
  std::string path;
  for (const auto& file : std::filesystem::directory_iterator(folder_.path())) {
    if (file.path().filename().string().starts_with("gate")) path = file.path();
  }
  // Turned round: no measurement would say so for every number of rows.
  for (const char way : {'1', '2'}) {
    std::string text = formats::read_text(path);
    size_t line = 0;
    for (int header = 0; header < 3; ++header) line = text.find('\n', line) + 1;
    for (size_t end = text.find('\n', line); text.substr(line, 3) != "end";
         end = text.find('\n', line)) {
      text[end - 1] = way;
      line = end + 1;
    }
    formats::write_text(path, text);
    const std::string ways = fused();
    EXPECT_EQ(ways, std::string(ways.size(), way));
  }
}

}  // namespace
}  // namespace puna::kernels::cuda
