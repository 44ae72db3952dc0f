// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/host_ops.h"

#include <sys/mman.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/check.h"
#include "base/checked_math.h"

namespace puna::kernels {

HostMatrix::HostMatrix(std::span<const MatrixPart> parts, int32_t head_dim) {
  CHECK(!parts.empty());
  columns_ = parts.front().columns;
  for (const MatrixPart& part : parts) {
    CHECK_EQ(part.columns, columns_);
    CHECK(part.order == RowOrder::kAsStored || part.rows % head_dim == 0);
    const formats::TensorTypeInfo& info = formats::tensor_type_info(part.type);
    CHECK_EQ(columns_ % info.block_elements, 0);
    const int64_t row_bytes = columns_ / info.block_elements * info.block_bytes;
    CHECK_EQ(static_cast<int64_t>(part.data.size()), part.rows * row_bytes);
    parts_.push_back({.type = part.type,
                      .rows = part.rows,
                      .block_elements = info.block_elements,
                      .block_bytes = info.block_bytes,
                      .row_bytes = row_bytes,
                      .data = part.data.data(),
                      .order = part.order,
                      .head_dim = head_dim});
  }
}

int64_t HostMatrix::rows() const {
  int64_t sum = 0;
  for (const Part& part : parts_) sum += part.rows;
  return sum;
}

uint64_t KvLayout::bytes(const KvShape& shape) {
  auto bytes =
      checked_mul(static_cast<uint64_t>(shape.num_layers), static_cast<uint64_t>(shape.num_blocks));
  for (const int64_t factor : {int64_t{2}, int64_t{shape.num_kv_heads}, int64_t{kKvBlockTokens},
                               int64_t{shape.head_dim}, element_bytes(shape.type)}) {
    if (bytes) bytes = checked_mul(*bytes, static_cast<uint64_t>(factor));
  }
  return bytes.value_or(std::numeric_limits<uint64_t>::max());
}

// Anonymous pages are zero, and become resident when first written.
Result<Buffer> HostOps::allocate(uint64_t bytes, std::string_view what) const {
  const uint64_t wanted = bytes == 0 ? 1 : bytes;
  void* data = MAP_FAILED;
  errno = ENOMEM;
  if (wanted <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    data = ::mmap(nullptr, wanted, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  }
  if (data == MAP_FAILED) {
    return Error(ErrorCode::kResourceExhausted, "no memory for {}: {} bytes wanted: {}", what,
                 bytes, std::strerror(errno));
  }
  return Buffer(static_cast<std::byte*>(data), wanted,
                [](std::byte* from, uint64_t size) { ::munmap(from, size); });
}

void HostOps::upload(std::span<const float> values, const Buffer& to) const {
  CHECK_LE(values.size_bytes(), to.bytes());
  std::memcpy(to.data(), values.data(), values.size_bytes());
}

Result<std::unique_ptr<PackedMatrix>> HostOps::pack(std::span<const MatrixPart> parts,
                                                    int32_t head_dim) const {
  return std::unique_ptr<PackedMatrix>(std::make_unique<HostMatrix>(parts, head_dim));
}

uint64_t HostOps::packed_bytes(std::span<const MatrixPart> /*parts*/) const { return 0; }

uint64_t HostOps::activation_bytes(int64_t rows, int64_t columns) const {
  return static_cast<uint64_t>(rows * padded_columns(columns)) * sizeof(float);
}

// As transformers does: the angle is a float32 product (models were trained with its rounding), its
// cosine and sine are exact to float32.
void HostOps::rotations(Lane& lane, std::span<const SequenceRows> sequences,
                        std::span<const float> inverse_frequency, FloatRows out) const {
  for (const SequenceRows& sequence : sequences) {
    const Lane::Range share = lane.share(sequence.num_rows);
    for (int64_t i = share.begin; i < share.end; ++i) {
      const auto position = static_cast<float>(sequence.first_position + i);
      float* row = out.row(sequence.first_row + i);
      for (size_t pair = 0; pair < inverse_frequency.size(); ++pair) {
        const double angle = static_cast<double>(position * inverse_frequency[pair]);
        row[2 * pair] = static_cast<float>(std::cos(angle));
        row[2 * pair + 1] = static_cast<float>(std::sin(angle));
      }
    }
  }
}

}  // namespace puna::kernels
