// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/host_matrix.h"

#include <utility>

#include "base/check.h"

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

void HostMatrix::set_panels(std::vector<Panels> panels, Buffer memory, ActivationFormat input) {
  CHECK_EQ(panels.size(), parts_.size());
  panels_ = std::move(panels);
  memory_ = std::move(memory);
  input_ = input;
}

}  // namespace puna::kernels
