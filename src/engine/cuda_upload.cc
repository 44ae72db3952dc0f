// SPDX-License-Identifier: Apache-2.0
#include "engine/cuda_upload.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <thread>
#include <utility>

#include "base/check.h"
#include "formats/spec_check.h"
#include "kernels/cuda/row_kernels.h"
#include "quant/dequant.h"
#include "quant/run_on_threads.h"

namespace puna::engine {
namespace {

namespace cuda = kernels::cuda;
using formats::TensorView;

constexpr uint32_t kMaxReaders = 8;
constexpr size_t kBuffersOfReader = 2;
static_assert(CudaUpload::kBufferElements >= formats::kMaxIntermediateSize);
static_assert(CudaUpload::kBufferElements >= formats::kMaxHiddenSize);

}  // namespace

class CudaUpload::Reader {
 public:
  Reader(const CudaUpload& upload, int device, Float16* const* buffers) : upload_(upload) {
    cuda::check_device(cudaSetDevice(device), "copying weights");
    for (Buffer& buffer : buffers_) {
      buffer.data = *buffers++;
      cuda::check_device(cudaEventCreateWithFlags(&buffer.copied, cudaEventDisableTiming),
                         "creating an event");
    }
  }
  ~Reader() {
    for (Buffer& buffer : buffers_) (void)cudaEventDestroy(buffer.copied);
  }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  void copy(const Piece& piece) {
    const TensorView& view = *piece.view;
    const int64_t elements = piece.rows * view.columns;
    Buffer& buffer = buffers_[next_++ % buffers_.size()];
    cuda::check_device(cudaEventSynchronize(buffer.copied), "copying weights");
    for (int64_t row = 0; row < piece.rows; ++row)
      convert_row(piece, piece.first_row + row, buffer.data + row * view.columns);
    cuda::check_device(
        cudaMemcpyAsync(piece.to, buffer.data, static_cast<size_t>(elements) * sizeof(Float16),
                        cudaMemcpyHostToDevice, upload_.stream_),
        "copying weights");
    cuda::check_device(cudaEventRecord(buffer.copied, upload_.stream_), "copying weights");
    if (view.type == formats::TensorType::kBF16)
      cuda::from_bfloat16(piece.to, elements, upload_.stream_);
  }

 private:
  struct Buffer {
    Float16* data = nullptr;
    cudaEvent_t copied = nullptr;
  };

  int64_t source_row(const Piece& piece, int64_t row) const {
    const formats::ModelSpec& spec = upload_.checkpoint_->spec();
    if (!piece.rotated || spec.rope_layout == formats::RopeLayout::kInterleaved) return row;
    const int64_t in_head = row % spec.head_dim;
    return row - in_head + in_head / 2 + (in_head % 2) * (spec.head_dim / 2);
  }

  void convert_row(const Piece& piece, int64_t row, Float16* to) {
    const TensorView& view = *piece.view;
    const size_t row_bytes = view.data.size() / static_cast<size_t>(view.rows);
    const auto from = static_cast<size_t>(source_row(piece, row)) * row_bytes;
    const auto bytes = view.data.subspan(from, row_bytes);
    if (view.type == formats::TensorType::kBF16 || view.type == formats::TensorType::kF16) {
      std::memcpy(to, bytes.data(), row_bytes);  // the device converts bf16
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

  const CudaUpload& upload_;
  std::array<Buffer, kBuffersOfReader> buffers_;
  size_t next_ = 0;
  std::vector<float> row_;  // scratch of convert_row
};

Result<CudaUpload> CudaUpload::create(const formats::Checkpoint& checkpoint, cuda::Stream stream,
                                      int64_t buffer_elements) {
  CudaUpload upload(checkpoint, stream, buffer_elements);
  const uint32_t readers = std::clamp(std::thread::hardware_concurrency(), 1U, kMaxReaders);
  upload.buffers_.resize(kBuffersOfReader * readers);
  const auto elements = static_cast<int64_t>(upload.buffers_.size()) * buffer_elements;
  const uint64_t bytes = static_cast<uint64_t>(elements) * sizeof(Float16);
  ASSIGN_OR_RETURN(upload.pinned_, cuda::Arena::pinned(bytes, "loading weights"));
  auto* next = upload.pinned_.take<Float16>(elements);
  for (Float16*& buffer : upload.buffers_) buffer = std::exchange(next, next + buffer_elements);
  return upload;
}

void CudaUpload::add(formats::WeightId id, Float16* to, bool rotated) {
  const TensorView& view = checkpoint_->tensor(id);
  const int64_t most = buffer_elements_ / view.columns;
  CHECK_GT(most, 0);
  for (int64_t first = 0; first < view.rows; first += most) {
    pieces_.push_back(
        {&view, first, std::min(most, view.rows - first), rotated, to + first * view.columns});
  }
}

void CudaUpload::vector(formats::WeightId id, float* to) {
  const TensorView& view = checkpoint_->tensor(id);
  std::vector<float> values(static_cast<size_t>(view.columns));
  quant::dequantize(view.type, view.data, values);
  cuda::check_device(
      cudaMemcpy(to, values.data(), values.size() * sizeof(float), cudaMemcpyHostToDevice),
      "copying weights");
}

void CudaUpload::finish() {
  int device = 0;
  cuda::check_device(cudaGetDevice(&device), "copying weights");
  std::atomic<size_t> readers{0};
  std::atomic<size_t> next{0};
  const size_t threads = buffers_.size() / kBuffersOfReader;
  quant::run_on_threads(static_cast<int64_t>(threads), [&] {
    Reader reader(*this, device, buffers_.data() + kBuffersOfReader * readers++);
    for (size_t i = next++; i < pieces_.size(); i = next++) reader.copy(pieces_[i]);
  });
  cuda::check_device(cudaStreamSynchronize(stream_), "copying weights");
}

}  // namespace puna::engine
