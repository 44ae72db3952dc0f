// SPDX-License-Identifier: Apache-2.0
#include "engine/cuda_upload.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "kernels/cuda/row_kernels.h"
#include "quant/dequant.h"

namespace puna::engine {
namespace {

namespace cuda = kernels::cuda;
using formats::TensorView;

constexpr int64_t kBufferElements = int64_t{8} << 20;  // 16 MiB each

}  // namespace

Result<CudaUpload> CudaUpload::create(const formats::Checkpoint& checkpoint, cuda::Stream stream) {
  CudaUpload upload(checkpoint, stream);
  ASSIGN_OR_RETURN(upload.pinned_,
                   cuda::Arena::pinned(2 * kBufferElements * sizeof(Float16), "loading weights"));
  for (Buffer& buffer : upload.buffers_) {
    buffer.data = upload.pinned_.take<Float16>(kBufferElements);
    cuda::check_device(cudaEventCreateWithFlags(&buffer.copied, cudaEventDisableTiming),
                       "creating an event");
  }
  return upload;
}

int64_t CudaUpload::source_row(int64_t row, bool rotated) const {
  const formats::ModelSpec& spec = checkpoint_->spec();
  if (!rotated || spec.rope_layout == formats::RopeLayout::kInterleaved) return row;
  const int64_t in_head = row % spec.head_dim;
  return row - in_head + in_head / 2 + (in_head % 2) * (spec.head_dim / 2);
}

void CudaUpload::convert_row(const TensorView& view, int64_t row, Float16* to) {
  const size_t row_bytes = view.data.size() / static_cast<size_t>(view.rows);
  const auto bytes = view.data.subspan(static_cast<size_t>(row) * row_bytes, row_bytes);
  if (view.type == formats::TensorType::kBF16 || view.type == formats::TensorType::kF16) {
    std::memcpy(to, bytes.data(), row_bytes);  // copy() has bf16 converted by the device
    return;
  }
  row_.resize(static_cast<size_t>(view.columns));
  quant::dequantize(view.type, bytes, row_);
  for (size_t i = 0; i < row_.size(); ++i) {
    const Float16 value = to_float16(row_[i]);
    const bool infinite = (value.bits & 0x7FFFU) == 0x7C00U;
    to[i].bits = static_cast<uint16_t>(value.bits - (infinite ? 1 : 0));  // the largest number
  }
}

void CudaUpload::copy(formats::WeightId id, Float16* to, bool rotated) {
  const TensorView& view = checkpoint_->tensor(id);
  const int64_t most = kBufferElements / view.columns;
  CHECK_GT(most, 0);
  for (int64_t first = 0; first < view.rows; first += most) {
    const int64_t rows = std::min(most, view.rows - first);
    Buffer& buffer = buffers_[next_++ % buffers_.size()];
    cuda::check_device(cudaEventSynchronize(buffer.copied), "copying weights");
    for (int64_t row = 0; row < rows; ++row)
      convert_row(view, source_row(first + row, rotated), buffer.data + row * view.columns);
    cuda::check_device(cudaMemcpyAsync(to + first * view.columns, buffer.data,
                                       static_cast<size_t>(rows * view.columns) * sizeof(Float16),
                                       cudaMemcpyHostToDevice, stream_),
                       "copying weights");
    cuda::check_device(cudaEventRecord(buffer.copied, stream_), "copying weights");
    if (view.type == formats::TensorType::kBF16)
      cuda::from_bfloat16(to + first * view.columns, rows * view.columns, stream_);
  }
}

void CudaUpload::vector(formats::WeightId id, float* to) {
  const TensorView& view = checkpoint_->tensor(id);
  row_.resize(static_cast<size_t>(view.columns));
  quant::dequantize(view.type, view.data, row_);
  cuda::check_device(
      cudaMemcpy(to, row_.data(), row_.size() * sizeof(float), cudaMemcpyHostToDevice),
      "copying weights");
}

void CudaUpload::finish() {
  cuda::check_device(cudaStreamSynchronize(stream_), "copying weights");
  for (Buffer& buffer : buffers_) (void)cudaEventDestroy(buffer.copied);
}

}  // namespace puna::engine
