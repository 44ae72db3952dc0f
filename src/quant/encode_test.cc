// SPDX-License-Identifier: Apache-2.0
// The encoders with a search: how little they lose, that importance moves the loss to where it
// matters less, and that nothing in the values can break them.
#include "quant/encode.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "base/mapped_file.h"
#include "base/numeric.h"
#include "quant/dequant.h"
#include "quant/encode_kernels.h"

namespace puna::quant {
namespace {

using formats::TensorType;

// Root mean square of the error that the encoder leaves in normal values of unit variance, at most.
// Measured, plus 3 %.
struct Searched {
  TensorType type;
  double loss;
};
constexpr Searched kSearched[] = {
    {TensorType::kQ4_0, 0.0862},   {TensorType::kQ4_1, 0.0762}, {TensorType::kQ5_0, 0.0425},
    {TensorType::kQ5_1, 0.0347},   {TensorType::kQ2_K, 0.285},  {TensorType::kQ3_K, 0.155},
    {TensorType::kQ4_K, 0.0762},   {TensorType::kQ5_K, 0.0378}, {TensorType::kQ6_K, 0.0185},
    {TensorType::kIQ4_NL, 0.0803},
};

std::vector<float> normal_values(size_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

std::vector<float> coded(TensorType type, std::span<const float> values,
                         std::span<const float> importance = {}) {
  std::vector<std::byte> blocks(*formats::tensor_bytes(type, values.size()));
  encode(type, values, blocks, importance);
  std::vector<float> decoded(values.size());
  dequantize(type, blocks, decoded);
  return decoded;
}

double squared_error(std::span<const float> a, std::span<const float> b,
                     std::span<const float> importance = {}) {
  double sum = 0.0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double error = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    sum += error * error * (importance.empty() ? 1.0 : static_cast<double>(importance[i]));
  }
  return sum;
}

class SearchedType : public testing::TestWithParam<Searched> {};

TEST_P(SearchedType, LosesLittleOfNormalValues) {
  const std::vector<float> values = normal_values(1 << 16, 1);
  const double rms = std::sqrt(squared_error(values, coded(GetParam().type, values)) /
                               static_cast<double>(values.size()));
  EXPECT_LT(rms, GetParam().loss);
  EXPECT_GT(rms, GetParam().loss / 1.1);  // or the bound above says nothing
}

// Values that came out of blocks go into blocks again, almost as they were.
TEST_P(SearchedType, KeepsWhatItCanRepresent) {
  const TensorType type = GetParam().type;
  const std::vector<float> once = coded(type, normal_values(1 << 14, 2));
  const std::vector<float> twice = coded(type, once);
  const double lost = squared_error(once, twice) / squared_error(once, std::vector(1 << 14, 0.0F));
  const double first = GetParam().loss * GetParam().loss;
  EXPECT_LT(lost, 0.1 * first);
}

TEST_P(SearchedType, ImportanceMovesTheLoss) {
  const std::vector<float> values = normal_values(1 << 15, 3);
  std::vector<float> importance(values.size());
  for (size_t i = 0; i < importance.size(); ++i) importance[i] = i % 4 == 0 ? 10.0F : 0.1F;
  const double without = squared_error(values, coded(GetParam().type, values), importance);
  const double with = squared_error(values, coded(GetParam().type, values, importance), importance);
  EXPECT_LT(with, 0.8 * without);
}

TEST_P(SearchedType, OnlyRatiosOfImportanceCount) {
  const std::vector<float> values = normal_values(1024, 4);
  const std::vector<float> ones = coded(GetParam().type, values, std::vector(1024, 1.0F));
  EXPECT_EQ(coded(GetParam().type, values, std::vector(1024, 4.0F)), ones);
  EXPECT_EQ(coded(GetParam().type, values, std::vector(1024, 0.0F)), ones);
}

// Without importance the search is shorter, not another one: what it loses more is bounded.
TEST_P(SearchedType, TheShortSearchLosesLittleMore) {
  const std::vector<float> values = normal_values(1 << 15, 7);
  const std::vector<float> ones(values.size(), 1.0F);
  const double closer = squared_error(values, coded(GetParam().type, values, ones));
  const double shorter = squared_error(values, coded(GetParam().type, values));
  EXPECT_LT(shorter, 1.03 * closer);  // Q5_1 1.015, Q4_1 and Q4_0 1.005, the others less
}

// With importance and without, which search differently.
TEST_P(SearchedType, EveryInstructionSetGivesTheSameBytes) {
#if defined(__x86_64__)
  std::vector<float> values = normal_values(1 << 13, 5);
  for (size_t i = 0; i < 512; ++i) values[i] *= 1e-6F;
  std::vector<float> squares = normal_values(values.size(), 6);
  for (float& square : squares) square *= square;
  const size_t count = values.size() / formats::tensor_type_info(GetParam().type).block_elements;
  std::vector<std::byte> expected(*formats::tensor_bytes(GetParam().type, values.size()));
  std::vector<std::byte> found(expected.size());
  const float* const both[] = {nullptr, squares.data()};
  for (const float* importance : both) {
    encode_blocks_generic(GetParam().type, values.data(), importance, count, expected.data());
    if (__builtin_cpu_supports("avx2")) {
      encode_blocks_avx2(GetParam().type, values.data(), importance, count, found.data());
      EXPECT_EQ(found, expected);
    }
    if (encode_blocks() == encode_blocks_avx512) {
      encode_blocks_avx512(GetParam().type, values.data(), importance, count, found.data());
      EXPECT_EQ(found, expected);
    }
  }
#endif
}

TEST_P(SearchedType, ZerosStayZeros) {
  for (const float value : coded(GetParam().type, std::vector<float>(512, 0.0F))) {
    EXPECT_EQ(value, 0.0F);
  }
}

TEST_P(SearchedType, KeepsAConstantBlock) {
  for (const float constant : {0.25F, -3.0F}) {
    const std::vector<float> values(256, constant);
    for (const float value : coded(GetParam().type, values)) EXPECT_NEAR(value, constant, 0.01);
  }
}

TEST_P(SearchedType, SurvivesValuesThatAreNotFinite) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  for (const float odd : {kInfinity, -kInfinity, kNan, 3e38F, -3e38F, 1e-45F}) {
    std::vector<float> values(256, 1.0F);
    values[7] = odd;
    (void)coded(GetParam().type, values);  // UBSan would see a conversion out of range
    (void)coded(GetParam().type, std::vector<float>(256, odd));
  }
}

std::string searched_name(const testing::TestParamInfo<Searched>& info) {
  return std::string(formats::tensor_type_name(info.param.type));
}
INSTANTIATE_TEST_SUITE_P(Quant, SearchedType, testing::ValuesIn(kSearched), searched_name);

// What the `gguf` Python package encodes by rounding alone, on values of all sizes: the search
// loses less in total and nowhere much more.
TEST(Encode, SearchBeatsRounding) {
  for (const TensorType type : {TensorType::kQ4_0, TensorType::kQ4_1}) {
    const std::string name(formats::tensor_type_name(type));
    auto file = MappedFile::open(std::string(PUNA_GOLDEN_DIR) + "/quant/" + name + ".encode");
    ASSERT_TRUE(file.ok()) << file.error().message();
    uint32_t count = 0;
    std::memcpy(&count, file->bytes().data(), sizeof(count));
    std::vector<float> values(count);
    std::memcpy(values.data(), file->bytes().data() + 4, count * sizeof(float));
    std::vector<float> rounded(count);
    dequantize(type, file->bytes().subspan(4 + count * sizeof(float)), rounded);
    const std::vector<float> searched = coded(type, values);
    double sum_searched = 0.0;  // of what each block loses of its squares
    double sum_rounded = 0.0;
    for (size_t i = 0; i < count; i += 32) {
      const std::span<const float> block(values.data() + i, 32);
      const double scale = squared_error(block, std::vector(32, 0.0F)) + 1e-30;
      const double lost = squared_error(block, {searched.data() + i, 32}) / scale;
      const double expected = squared_error(block, {rounded.data() + i, 32}) / scale;
      EXPECT_LE(lost, 1.1 * expected + 1e-6) << name << " block " << i / 32;
      if (i >= 2048) continue;  // behind them are values too small for float16 scales
      sum_searched += lost;
      sum_rounded += expected;
    }
    EXPECT_LT(sum_searched, 0.95 * sum_rounded) << name;
  }
}

// However little the calibration text made of its column, the largest value of a block stays nearly
// in range: what is clipped more lowers the weighted error and raises the perplexity of other text.
TEST(Encode, Q4_0WithImportanceClipsLittle) {
  const std::vector<float> values = normal_values(1 << 15, 9);
  std::vector<float> importance(values.size(), 1.0F);
  std::vector<size_t> largest;
  for (size_t begin = 0; begin < values.size(); begin += 32) {
    size_t at = begin;
    for (size_t i = begin; i < begin + 32; ++i) {
      if (std::fabs(values[i]) > std::fabs(values[at])) at = i;
    }
    importance[at] = 1e-3F;
    largest.push_back(at);
  }
  const std::vector<float> decoded = coded(TensorType::kQ4_0, values, importance);
  for (const size_t at : largest) {
    EXPECT_GT(decoded[at] / values[at], 0.72F) << "block " << at / 32;  // 7 codes of 9 at the least
  }
}

// Values of a Q4_1 block that were kept as float16, one column much more important than the others:
// the line they came from is one of those that can be found, and nearly the best.
TEST(Encode, FindsTheLineThatValuesCameFrom) {
  constexpr size_t kBlocks = 512;
  std::mt19937_64 random(8);
  std::uniform_real_distribution<float> uniform;
  std::vector<float> values(kBlocks * 32);
  std::vector<float> known(values.size());
  std::vector<float> importance(values.size(), 1.0F);
  for (size_t block = 0; block < kBlocks; ++block) {
    const float d = to_float(to_float16(0.01F * (1.0F + uniform(random))));
    const float m = to_float(to_float16(-d * (6.0F + 3.0F * uniform(random))));
    for (size_t i = block * 32; i < block * 32 + 32; ++i) {
      const float code = i % 32 < 2 ? 15.0F * static_cast<float>(i % 32)  // both ends occur
                                    : std::floor(16.0F * uniform(random));
      known[i] = d * code + m;
      values[i] = to_float(to_float16(known[i]));
    }
    importance[block * 32 + 5] = 2400.0F;
  }
  for (const TensorType type : {TensorType::kQ4_1, TensorType::kQ5_1}) {
    EXPECT_LT(squared_error(values, coded(type, values, importance), importance),
              1.5 * squared_error(values, known, importance))  // it was 30 times that
        << formats::tensor_type_name(type);
  }
}

TEST(Encode, StaysWithinHalfAStep) {
  std::vector<float> values(256);
  for (size_t i = 0; i < values.size(); ++i) values[i] = std::sin(static_cast<float>(i));
  const std::vector<float> decoded = coded(TensorType::kQ8_0, values);
  for (size_t i = 0; i < values.size(); ++i) EXPECT_NEAR(decoded[i], values[i], 0.5 / 127 + 1e-3);
}

TEST(Encode, TypesThatAreOnlyRead) {
  EXPECT_FALSE(can_encode(TensorType::kIQ4_XS));
  EXPECT_TRUE(can_encode(TensorType::kQ4_K));
  EXPECT_TRUE(can_encode(TensorType::kF32));
}

}  // namespace
}  // namespace puna::quant
