// SPDX-License-Identifier: Apache-2.0
// Weights of every type for tests and `puna bench kernels`: random blocks whose float16 scales are
// small ordinary numbers, so that any decoder gives finite values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "base/numeric.h"
#include "formats/tensor_type.h"
#include "kernels/ops.h"

namespace puna::kernels {

inline constexpr formats::TensorType kAllTypes[] = {
    formats::TensorType::kF32,  formats::TensorType::kF16,    formats::TensorType::kBF16,
    formats::TensorType::kQ4_0, formats::TensorType::kQ4_1,   formats::TensorType::kQ5_0,
    formats::TensorType::kQ5_1, formats::TensorType::kQ8_0,   formats::TensorType::kQ2_K,
    formats::TensorType::kQ3_K, formats::TensorType::kQ4_K,   formats::TensorType::kQ5_K,
    formats::TensorType::kQ6_K, formats::TensorType::kIQ4_NL, formats::TensorType::kIQ4_XS};

// Byte offsets of a block's float16 fields; see quant/block_types.h.
inline std::vector<size_t> half_offsets(formats::TensorType type) {
  using formats::TensorType;
  switch (type) {
    case TensorType::kQ4_1:
    case TensorType::kQ5_1:
    case TensorType::kQ4_K:
    case TensorType::kQ5_K:
      return {0, 2};
    case TensorType::kQ2_K:
      return {80, 82};
    case TensorType::kQ3_K:
      return {108};
    case TensorType::kQ6_K:
      return {208};
    default:
      return {0};
  }
}

class RandomWeights {
 public:
  RandomWeights(formats::TensorType type, int64_t rows, int64_t columns, uint32_t seed)
      : type_(type), rows_(rows), columns_(columns), random_(seed) {
    const formats::TensorTypeInfo& info = formats::tensor_type_info(type);
    bytes_.resize(static_cast<size_t>(rows * columns / info.block_elements * info.block_bytes));
    for (size_t at = 0; at < bytes_.size(); at += info.block_bytes) fill_block(&bytes_[at], info);
  }

  MatrixPart part(RowOrder order = RowOrder::kAsStored) const {
    return {.type = type_, .rows = rows_, .columns = columns_, .data = bytes_, .order = order};
  }

 private:
  void fill_block(std::byte* block, const formats::TensorTypeInfo& info) {
    std::normal_distribution<float> normal;
    const float value = normal(random_);
    if (type_ == formats::TensorType::kF32) return copy(block, value);
    if (type_ == formats::TensorType::kF16) return copy(block, to_float16(value));
    if (type_ == formats::TensorType::kBF16) return copy(block, to_bfloat16(value));
    for (size_t i = 0; i < info.block_bytes; ++i)
      block[i] = static_cast<std::byte>(random_() & 255);
    for (const size_t offset : half_offsets(type_))
      copy(block + offset, to_float16(0.02F * normal(random_)));
  }
  template <typename T>
  static void copy(std::byte* to, T value) {
    std::memcpy(to, &value, sizeof value);
  }

  formats::TensorType type_;
  int64_t rows_;
  int64_t columns_;
  std::mt19937 random_;
  std::vector<std::byte> bytes_;
};

}  // namespace puna::kernels
