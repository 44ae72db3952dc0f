// SPDX-License-Identifier: Apache-2.0
// Weights of a checkpoint to the device, as f16 matrices and f32 vectors, through two pinned
// buffers: one is filled while the other is copied. Used while loading, by one thread.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "base/numeric.h"
#include "base/result.h"
#include "formats/checkpoint.h"
#include "kernels/cuda/device.h"

struct CUevent_st;

namespace puna::engine {

class CudaUpload {
 public:
  static Result<CudaUpload> create(const formats::Checkpoint& checkpoint,
                                   kernels::cuda::Stream stream);
  void matrix(formats::WeightId id, Float16* to) { copy(id, to, false); }
  // Query and key rows, so that pairs (2i, 2i + 1) rotate together whatever the file's layout.
  void rotated_matrix(formats::WeightId id, Float16* to) { copy(id, to, true); }
  void vector(formats::WeightId id, float* to);
  void finish();  // waits for the copies

 private:
  struct Buffer {
    Float16* data = nullptr;
    CUevent_st* copied = nullptr;
  };
  CudaUpload(const formats::Checkpoint& checkpoint, kernels::cuda::Stream stream)
      : checkpoint_(&checkpoint), stream_(stream) {}
  void copy(formats::WeightId id, Float16* to, bool rotated);
  void convert_row(const formats::TensorView& view, int64_t row, Float16* to);
  int64_t source_row(int64_t row, bool rotated) const;

  const formats::Checkpoint* checkpoint_;
  kernels::cuda::Stream stream_;
  kernels::cuda::Arena pinned_;
  std::array<Buffer, 2> buffers_;
  size_t next_ = 0;
  std::vector<float> row_;  // scratch of convert_row
};

}  // namespace puna::engine
