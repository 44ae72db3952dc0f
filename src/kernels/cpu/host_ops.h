// SPDX-License-Identifier: Apache-2.0
// What every CPU implementation shares: memory, weights used in place, and where keys and values
// stand.
#pragma once

#include <vector>

#include "kernels/ops.h"

namespace puna::kernels {

// Weights straight from the mapped file: a row is found by arithmetic, so a row order costs
// nothing.
class HostMatrix final : public PackedMatrix {
 public:
  struct Part {
    formats::TensorType type = formats::TensorType::kF32;
    int64_t rows = 0;
    int64_t block_elements = 1;
    int64_t block_bytes = 4;
    int64_t row_bytes = 0;
    const std::byte* data = nullptr;
    RowOrder order = RowOrder::kAsStored;
    int64_t head_dim = 0;

    // The blocks of packed row `row` from `column` on, a multiple of block_elements.
    const std::byte* blocks(int64_t row, int64_t column) const {
      return data + stored_row(row) * row_bytes + column / block_elements * block_bytes;
    }
    int64_t stored_row(int64_t row) const {
      if (order == RowOrder::kAsStored) return row;
      const int64_t in_head = row % head_dim;
      return row - in_head + in_head / 2 + (in_head % 2) * (head_dim / 2);
    }
  };

  HostMatrix(std::span<const MatrixPart> parts, int32_t head_dim);
  const std::vector<Part>& parts() const { return parts_; }
  int64_t columns() const { return columns_; }
  int64_t rows() const;

  static const HostMatrix& of(const PackedMatrix& matrix) {
    return static_cast<const HostMatrix&>(matrix);
  }

 private:
  std::vector<Part> parts_;
  int64_t columns_ = 0;
};

// Where keys and values stand: [layer][block][key, value][kv_head][kKvBlockTokens][head_dim].
struct KvLayout {
  explicit KvLayout(const KvCache& cache) : data(cache.data), shape(cache.shape) {}

  static int64_t element_bytes(KvType type) { return type == KvType::kF32 ? 4 : 2; }
  // UINT64_MAX when the product overflows, which no allocation satisfies.
  static uint64_t bytes(const KvShape& shape);

  // head_dim elements; `block_table` is the sequence's.
  std::byte* key(int64_t layer, const int32_t* block_table, int64_t position,
                 int64_t kv_head) const {
    return row(layer, block_table, position, kv_head);
  }
  std::byte* value(int64_t layer, const int32_t* block_table, int64_t position,
                   int64_t kv_head) const {
    return row(layer, block_table, position, kv_head + shape.num_kv_heads);
  }

  std::byte* data;
  KvShape shape;

 private:
  std::byte* row(int64_t layer, const int32_t* block_table, int64_t position, int64_t head) const {
    const int64_t block = block_table[position / kKvBlockTokens];
    const int64_t index = (layer * shape.num_blocks + block) * 2 * shape.num_kv_heads + head;
    return data + (index * kKvBlockTokens + position % kKvBlockTokens) * shape.head_dim *
                      element_bytes(shape.type);
  }
};

// Activations are f32 rows on every CPU implementation.
inline FloatRows float_rows(Activations activations) {
  return {reinterpret_cast<float*>(activations.data), activations.columns};
}

class HostOps : public Ops {
 public:
  Result<Buffer> allocate(uint64_t bytes, std::string_view what) const override;
  void upload(std::span<const float> values, const Buffer& to) const override;
  Result<std::unique_ptr<PackedMatrix>> pack(std::span<const MatrixPart> parts,
                                             int32_t head_dim) const override;
  uint64_t packed_bytes(std::span<const MatrixPart> parts) const override;
  uint64_t activation_bytes(int64_t rows, int64_t columns) const override;
  uint64_t kv_bytes(const KvShape& shape) const override { return KvLayout::bytes(shape); }
  void rotations(Lane& lane, std::span<const SequenceRows> sequences,
                 std::span<const float> inverse_frequency, FloatRows out) const override;
};

}  // namespace puna::kernels
