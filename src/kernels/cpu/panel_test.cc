// SPDX-License-Identifier: Apache-2.0
// Packed weights: every weight is found again after packing, and every instruction set multiplies
// them to the bits of the scalar kernels, however many rows there are.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "formats/tensor_type.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/panel_weights.h"
#include "kernels/cpu/tile_product.h"
#include "kernels/test_blocks.h"
#include "quant/dequant.h"

namespace puna::kernels {
namespace {

std::string type_name(formats::TensorType type) {
  return std::string(formats::tensor_type_name(type));
}

struct Table {
  std::string_view isa;
  const PanelKernels& kernels;
};

// Those that this CPU can run, without the scalar one.
std::vector<Table> tables() {
  std::vector<Table> all;
  for (const std::string_view isa : available_isas()) {
    if (isa == "avx2") all.push_back({isa, avx2_panel_kernels()});
    if (isa == "avx512") all.push_back({isa, avx512_panel_kernels()});
    if (isa == "avx512_bf16") all.push_back({isa, avx512_bf16_panel_kernels()});
  }
  return all;
}

// A weight matrix, packed.
class Packed {
 public:
  Packed(const MatrixPart& part, ActivationFormat input)
      : matrix_(std::span(&part, 1), 1), kind_(*panel_kind(part.type)) {
    const int64_t bytes = pair_bytes(kind_, part.columns);
    const int64_t count = pair_count(part.rows);
    auto* data =
        static_cast<std::byte*>(std::aligned_alloc(64, static_cast<size_t>(bytes * count)));
    std::memset(data, 0, static_cast<size_t>(bytes * count));
    Buffer memory(data, static_cast<uint64_t>(bytes * count),
                  [](std::byte* from, uint64_t) { std::free(from); });
    for (int64_t pair = 0; pair < count; ++pair) {
      pack_pair(kind_, matrix_.parts().front(), part.columns, pair, data + pair * bytes);
    }
    matrix_.set_panels({{.kind = kind_, .bytes = bytes, .data = data}}, std::move(memory), input);
  }
  const HostMatrix& matrix() const { return matrix_; }
  float value(int64_t row, int64_t column) const {
    const HostMatrix::Panels& panels = matrix_.panels().front();
    return PanelColumn(kind_, panels.pair(row / kPairColumns), row % kPairColumns).value(column);
  }
  std::vector<float> row(int64_t row, int64_t columns) const {
    const HostMatrix::Panels& panels = matrix_.panels().front();
    std::vector<float> values(static_cast<size_t>(columns));
    PanelColumn(kind_, panels.pair(row / kPairColumns), row % kPairColumns).read(values);
    return values;
  }

 private:
  HostMatrix matrix_;
  PanelKind kind_;
};

// Rows of activations in a format, written by a table.
class Rows {
 public:
  Rows(const PanelKernels& kernels, RowBuffer& values, int64_t rows, ActivationFormat format)
      : memory_(static_cast<size_t>(rows * activation_row_bytes(values.floats().columns)) / 64 + 1),
        x_{reinterpret_cast<std::byte*>(memory_.data()), values.floats().columns, format} {
    for (int64_t i = 0; i < rows; ++i)
      store_activations(kernels, values.floats().row(i), i, 0, x_.columns, x_);
  }
  const Activations& get() const { return x_; }
  std::span<const std::byte> bytes() const { return std::as_bytes(std::span(memory_)); }

 private:
  struct alignas(64) Line {
    std::byte bytes[64] = {};
  };
  std::vector<Line> memory_;
  Activations x_;
};

std::vector<float> multiply(const PanelKernels& kernels, const Activations& x,
                            const PackedMatrix& w, const Tile& tile) {
  const MicroKernels none;
  const auto product = std::make_unique<TileProduct>(none, kernels, x);
  product->compute(w, 0, tile);
  std::vector<float> values;
  for (int64_t i = 0; i < tile.rows; ++i)
    values.insert(values.end(), product->row(i), product->row(i) + tile.columns);
  return values;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

class PanelTypes : public testing::TestWithParam<formats::TensorType> {
 protected:
  bool bf16() const { return GetParam() == formats::TensorType::kBF16; }
  // Formats in which rows may be multiplied with this type.
  std::vector<ActivationFormat> formats() const {
    if (bf16()) return {{.type = ActivationType::kBF16}};
    return {{.type = ActivationType::kInt8, .group = 32},
            {.type = ActivationType::kInt8, .group = 128}};
  }
};

TEST_P(PanelTypes, HoldEveryWeight) {
  for (const int64_t rows : {1, 16, 37}) {
    const RandomWeights weights(GetParam(), rows, 512, 3);
    const Packed packed(weights.part(), formats().front());
    std::vector<float> want(512);
    for (int64_t row = 0; row < rows; ++row) {
      const HostMatrix::Part& part = packed.matrix().parts().front();
      quant::dequantize(GetParam(), {part.blocks(row, 0), static_cast<size_t>(part.row_bytes)},
                        want);
      for (int64_t column = 0; column < 512; ++column) {
        ASSERT_EQ(packed.value(row, column), want[static_cast<size_t>(column)])
            << rows << " rows: " << row << ", " << column;
      }
      EXPECT_TRUE(same_bits(packed.row(row, 512), want)) << rows << " rows: " << row;
    }
  }
}

TEST_P(PanelTypes, PackInAnyRowOrder) {
  const RandomWeights weights(GetParam(), 32, 256, 3);
  MatrixPart part = weights.part(RowOrder::kInterleaveHalves);
  const HostMatrix in_order(std::span(&part, 1), 16);
  const PanelKind kind = *panel_kind(GetParam());
  std::vector<std::byte> pair(static_cast<size_t>(pair_bytes(kind, 256)));
  pack_pair(kind, in_order.parts().front(), 256, 0, pair.data());
  const int64_t stored[] = {0, 8, 1, 9, 2, 10};  // halves of a head of 16, interleaved
  std::vector<float> want(256);
  for (int64_t row = 0; row < 6; ++row) {
    const auto bytes = static_cast<size_t>(in_order.parts().front().row_bytes);
    quant::dequantize(GetParam(),
                      part.data.subspan(static_cast<size_t>(stored[row]) * bytes, bytes), want);
    for (int64_t k = 0; k < 256; ++k) {
      ASSERT_EQ(PanelColumn(kind, pair.data(), row).value(k), want[static_cast<size_t>(k)]);
    }
  }
}

// 2,816 columns are one block of direct groups and some more, and six of unpacked ones.
TEST_P(PanelTypes, MultiplyToTheBitsOfTheScalarKernels) {
  if (bf16()) GTEST_SKIP() << "bf16 has no scalar kernel: see NearTheFloatProduct";
  for (const int64_t columns : {256, 2816}) {
    const RandomWeights weights(GetParam(), 64, columns, 4);
    RowBuffer x = RowBuffer::random(64, columns, 5);
    for (const ActivationFormat format : formats()) {
      const Packed packed(weights.part(), format);
      const Rows scalar_rows(scalar_panel_kernels(), x, 64, format);
      const Tile whole{.rows = 64, .columns = 64};
      const std::vector<float> want =
          multiply(scalar_panel_kernels(), scalar_rows.get(), packed.matrix(), whole);
      for (const Table& table : tables()) {
        const Rows rows(table.kernels, x, 64, format);
        ASSERT_EQ(std::memcmp(rows.bytes().data(), scalar_rows.bytes().data(), rows.bytes().size()),
                  0)
            << table.isa << ": quantised rows";
        for (int64_t m = 1; m <= 64; m += m < 20 || columns == 256 ? 1 : 11) {
          const std::vector<float> got =
              multiply(table.kernels, rows.get(), packed.matrix(), {.rows = m, .columns = 64});
          const std::vector<float> part(want.begin(), want.begin() + m * 64);
          ASSERT_TRUE(same_bits(got, part))
              << table.isa << ": " << m << " rows x " << columns << ", group " << format.group;
        }
      }
    }
  }
}

TEST_P(PanelTypes, GiveTheSameBitsForAnyTile) {
  const RandomWeights weights(GetParam(), 80, 512, 6);
  RowBuffer x = RowBuffer::random(20, 512, 7);
  for (const Table& table : tables()) {
    if (bf16() && table.kernels.bf16_product == nullptr) continue;
    const ActivationFormat format = formats().front();
    const Packed packed(weights.part(), format);
    const Rows rows(table.kernels, x, 20, format);
    const std::vector<float> all =
        multiply(table.kernels, rows.get(), packed.matrix(), {.rows = 20, .columns = 80});
    for (const Tile& tile : {Tile{3, 1, 0, 80}, Tile{0, 20, 17, 3}, Tile{5, 15, 31, 34},
                             Tile{19, 1, 79, 1}, Tile{7, 9, 64, 16}}) {
      const std::vector<float> part = multiply(table.kernels, rows.get(), packed.matrix(), tile);
      for (int64_t i = 0; i < tile.rows; ++i) {
        for (int64_t j = 0; j < tile.columns; ++j) {
          ASSERT_EQ(part[static_cast<size_t>(i * tile.columns + j)],
                    all[static_cast<size_t>((tile.first_row + i) * 80 + tile.first_column + j)])
              << table.isa << " " << i << ", " << j;
        }
      }
    }
  }
}

// Against the product of exactly decoded weights and plain f32 rows, in doubles.
TEST_P(PanelTypes, NearTheFloatProduct) {
  constexpr int64_t kColumns = 1024;
  const RandomWeights weights(GetParam(), 32, kColumns, 8);
  RowBuffer x = RowBuffer::random(7, kColumns, 9);
  for (const Table& table : tables()) {
    if (bf16() && table.kernels.bf16_product == nullptr) continue;
    for (const ActivationFormat format : formats()) {
      const Packed packed(weights.part(), format);
      const Rows rows(table.kernels, x, 7, format);
      const std::vector<float> got =
          multiply(table.kernels, rows.get(), packed.matrix(), {.rows = 7, .columns = 32});
      double error = 0.0;
      double size = 0.0;
      for (int64_t i = 0; i < 7; ++i) {
        for (int64_t j = 0; j < 32; ++j) {
          double want = 0.0;
          for (int64_t k = 0; k < kColumns; ++k) {
            want +=
                static_cast<double>(x.floats().row(i)[k]) * static_cast<double>(packed.value(j, k));
          }
          const double difference =
              static_cast<double>(got[static_cast<size_t>(i * 32 + j)]) - want;
          error += difference * difference;
          size += want * want;
        }
      }
      // Rounding normal values to 1/127 of the largest of 32 (128) is an error of about 0.5 % (0.7
      // %); bf16 rounds to 2^-9.
      EXPECT_LT(std::sqrt(error / size), bf16() ? 0.003 : 0.012) << table.isa << format.group;
      EXPECT_GT(error, 0.0);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, PanelTypes,
                         testing::Values(formats::TensorType::kQ4_0, formats::TensorType::kQ4_1,
                                         formats::TensorType::kQ5_0, formats::TensorType::kQ5_1,
                                         formats::TensorType::kQ8_0, formats::TensorType::kQ2_K,
                                         formats::TensorType::kQ3_K, formats::TensorType::kQ4_K,
                                         formats::TensorType::kQ5_K, formats::TensorType::kQ6_K,
                                         formats::TensorType::kIQ4_NL, formats::TensorType::kIQ4_XS,
                                         formats::TensorType::kBF16),
                         [](const auto& instance) { return type_name(instance.param); });

// All bytes 0x00 or 0xFF against rows of +-127: no sum may saturate on the way.
TEST(PanelProducts, DontSaturate) {
  constexpr int64_t kColumns = 512;
  for (const formats::TensorType type :
       {formats::TensorType::kQ8_0, formats::TensorType::kQ4_0, formats::TensorType::kQ6_K,
        formats::TensorType::kQ5_1, formats::TensorType::kIQ4_NL}) {
    const formats::TensorTypeInfo& info = formats::tensor_type_info(type);
    const auto bytes = static_cast<size_t>(32 * kColumns / info.block_elements * info.block_bytes);
    for (const int fill : {0x00, 0x80, 0xFF}) {
      std::vector<std::byte> blocks(bytes, static_cast<std::byte>(fill));
      for (size_t at = 0; at < bytes; at += info.block_bytes) {
        for (const size_t offset : half_offsets(type)) {
          const Float16 one = to_float16(1.0F);
          std::memcpy(&blocks[at + offset], &one, sizeof one);
        }
      }
      const ActivationFormat format{.type = ActivationType::kInt8, .group = 32};
      const Packed packed({.type = type, .rows = 32, .columns = kColumns, .data = blocks}, format);
      RowBuffer x(8, kColumns);
      for (int64_t k = 0; k < kColumns; ++k) {
        for (int64_t i = 0; i < 8; ++i)
          x.floats().row(i)[k] = i == 0        ? 127.0F
                                 : i == 1      ? -127.0F
                                 : (k + i) % 2 ? 127.0F
                                               : -127.0F;
      }
      const Rows scalar_rows(scalar_panel_kernels(), x, 8, format);
      const Tile whole{.rows = 8, .columns = 32};
      const std::vector<float> want =
          multiply(scalar_panel_kernels(), scalar_rows.get(), packed.matrix(), whole);
      for (const Table& table : tables()) {
        EXPECT_TRUE(
            same_bits(multiply(table.kernels, scalar_rows.get(), packed.matrix(), whole), want))
            << table.isa << " " << type_name(type) << " filled with " << fill;
      }
    }
  }
}

TEST(Quantize, RowsOfZerosAndOfOneValue) {
  for (const PanelKernels* kernels : {&scalar_panel_kernels(), &avx2_panel_kernels()}) {
    if (kernels != &scalar_panel_kernels() && tables().empty()) continue;
    float x[64] = {};
    x[40] = -3.0F;
    int8_t values[64];
    float scales[2];
    int32_t sums[4];
    kernels->quantize(x, 64, 32, values, scales, sums);
    EXPECT_EQ(scales[0], 0.0F);
    EXPECT_EQ(values[0], 0);
    EXPECT_EQ(values[40], -127);
    EXPECT_EQ(scales[1], 3.0F / 127.0F);
    EXPECT_EQ(sums[2], -127);
    EXPECT_EQ(sums[3], 0);
  }
}

}  // namespace
}  // namespace puna::kernels
