// SPDX-License-Identifier: Apache-2.0
// Decoders, and the encoders without a search, against what the `gguf` Python package gives, bit
// for bit.
// The golden files are made by tools/golden/make_quant_golden.py.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "base/mapped_file.h"
#include "base/numeric.h"
#include "quant/dequant.h"
#include "quant/encode.h"
#include "quant/encode_kernels.h"

namespace puna::quant {
namespace {

using formats::TensorType;

constexpr TensorType kAllTypes[] = {TensorType::kF32,  TensorType::kF16,    TensorType::kBF16,
                                    TensorType::kQ4_0, TensorType::kQ4_1,   TensorType::kQ5_0,
                                    TensorType::kQ5_1, TensorType::kQ8_0,   TensorType::kQ2_K,
                                    TensorType::kQ3_K, TensorType::kQ4_K,   TensorType::kQ5_K,
                                    TensorType::kQ6_K, TensorType::kIQ4_NL, TensorType::kIQ4_XS};

MappedFile open_golden(TensorType type, const std::string& kind) {
  const std::string name(formats::tensor_type_name(type));
  auto file = MappedFile::open(std::string(PUNA_GOLDEN_DIR) + "/quant/" + name + "." + kind);
  EXPECT_TRUE(file.ok()) << file.error().message();
  return std::move(file).value();
}

uint32_t leading_count(const MappedFile& file) {
  uint32_t count = 0;
  std::memcpy(&count, file.bytes().data(), sizeof(count));
  return count;
}

std::vector<float> floats_of(std::span<const std::byte> bytes) {
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

// Equal bits; any NaN equals any NaN, whose payload is the CPU's choice.
bool same_float(float a, float b) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b);
}

class EveryType : public testing::TestWithParam<TensorType> {};

TEST_P(EveryType, DecodesBitForBit) {
  const MappedFile file = open_golden(GetParam(), "dequant");
  const formats::TensorTypeInfo& info = formats::tensor_type_info(GetParam());
  const size_t count = leading_count(file);
  ASSERT_GE(count, 48U);
  ASSERT_EQ(file.size(), 4 + count * (info.block_bytes + sizeof(float) * info.block_elements));
  const auto blocks = file.bytes().subspan(4, count * info.block_bytes);
  const std::vector<float> expected = floats_of(file.bytes().subspan(4 + blocks.size()));
  std::vector<float> decoded(expected.size());
  dequantize(GetParam(), blocks, decoded);
  size_t finite = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_TRUE(same_float(decoded[i], expected[i]))
        << "element " << i << ": " << decoded[i] << ", expected " << expected[i];
    finite += std::isfinite(expected[i]) ? 1 : 0;
  }
  EXPECT_GT(finite, expected.size() * 4 / 5);
}

TEST_P(EveryType, DecodesUnalignedBlocksAlike) {
  const MappedFile file = open_golden(GetParam(), "dequant");
  const formats::TensorTypeInfo& info = formats::tensor_type_info(GetParam());
  std::vector<std::byte> shifted(info.block_bytes + 1);
  std::memcpy(shifted.data() + 1, file.bytes().data() + 4, info.block_bytes);
  std::vector<float> aligned(info.block_elements);
  std::vector<float> unaligned(info.block_elements);
  dequantize(GetParam(), file.bytes().subspan(4, info.block_bytes), aligned);
  dequantize(GetParam(), std::span<const std::byte>(shifted).subspan(1), unaligned);
  for (size_t i = 0; i < aligned.size(); ++i) EXPECT_TRUE(same_float(aligned[i], unaligned[i]));
}

TEST_P(EveryType, WrongSizesAreRefused) {
  const formats::TensorTypeInfo& info = formats::tensor_type_info(GetParam());
  std::vector<std::byte> blocks(2 * info.block_bytes);
  std::vector<float> values(info.block_elements);
  EXPECT_DEATH(dequantize(GetParam(), blocks, values), "CHECK failed");
}

std::string name_of(const testing::TestParamInfo<TensorType>& info) {
  return std::string(formats::tensor_type_name(info.param));
}
INSTANTIATE_TEST_SUITE_P(Quant, EveryType, testing::ValuesIn(kAllTypes), name_of);

class EncodedType : public testing::TestWithParam<TensorType> {};

TEST_P(EncodedType, EncodesBitForBit) {
  const MappedFile file = open_golden(GetParam(), "encode");
  const size_t count = leading_count(file);
  const std::vector<float> values = floats_of(file.bytes().subspan(4, count * sizeof(float)));
  const auto expected = file.bytes().subspan(4 + count * sizeof(float));
  ASSERT_EQ(expected.size(), *formats::tensor_bytes(GetParam(), count));
  std::vector<std::byte> encoded(expected.size());
  ASSERT_TRUE(can_encode(GetParam()));
  encode(GetParam(), values, encoded);
  const size_t block_bytes = formats::tensor_type_info(GetParam()).block_bytes;
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_EQ(encoded[i], expected[i])
        << "byte " << i % block_bytes << " of block " << i / block_bytes;
  }
}

INSTANTIATE_TEST_SUITE_P(Quant, EncodedType,
                         testing::Values(TensorType::kF16, TensorType::kBF16, TensorType::kQ8_0),
                         name_of);

// Every float16 there is, in whole vectors and what is left of one, at an odd address.
TEST(Decode, EveryHalfOnEveryInstructionSet) {
  std::vector<DecodeHalves> kernels = {decode_halves_generic, decode_halves()};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) kernels.push_back(decode_halves_avx2);
#endif
  constexpr size_t kCount = 65536;
  std::vector<std::byte> halves(kCount * 2 + 1);
  for (size_t i = 0; i < kCount; ++i) {
    const auto bits = static_cast<uint16_t>(i);
    std::memcpy(halves.data() + 1 + i * 2, &bits, sizeof(bits));
  }
  for (const DecodeHalves decode : kernels) {
    for (const size_t first : {size_t{0}, size_t{1015}}) {  // 1015: the last 9 fill no vector
      std::vector<float> found(kCount - first);
      decode(halves.data() + 1 + first * 2, found.size(), found.data());
      for (size_t i = 0; i < found.size(); ++i) {
        const float expected = to_float(Float16{static_cast<uint16_t>(first + i)});
        ASSERT_EQ(std::bit_cast<uint32_t>(found[i]), std::bit_cast<uint32_t>(expected))
            << "bits " << first + i;
      }
    }
  }
}

}  // namespace
}  // namespace puna::quant
