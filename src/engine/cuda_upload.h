// SPDX-License-Identifier: Apache-2.0
// Weights of a checkpoint to the device, as f16 matrices and f32 vectors. Several threads read and
// convert, each into two pinned buffers: one is filled while the other is copied, so that a file in
// the page cache comes as fast as the bus takes it. Used while loading, by one thread.
#pragma once

#include <cstdint>
#include <vector>

#include "base/numeric.h"
#include "base/result.h"
#include "formats/checkpoint.h"
#include "kernels/cuda/device.h"

namespace puna::engine {

class CudaUpload {
 public:
  // As long as the longest row there may be.
  static constexpr int64_t kBufferElements = int64_t{1} << 20;

  // A row must fit into a buffer (CHECKed).
  static Result<CudaUpload> create(const formats::Checkpoint& checkpoint,
                                   kernels::cuda::Stream stream,
                                   int64_t buffer_elements = kBufferElements);
  // Copied by finish().
  void matrix(formats::WeightId id, Float16* to) { add(id, to, false); }
  // Query and key rows, so that pairs (2i, 2i + 1) rotate together whatever the file's layout.
  void rotated_matrix(formats::WeightId id, Float16* to) { add(id, to, true); }
  // Copied at once.
  void vector(formats::WeightId id, float* to);
  void finish();  // returns when all is on the device

 private:
  // Rows of a matrix that fill a buffer.
  struct Piece {
    const formats::TensorView* view;
    int64_t first_row;
    int64_t rows;
    bool rotated;
    Float16* to;
  };
  class Reader;  // of one thread
  CudaUpload(const formats::Checkpoint& checkpoint, kernels::cuda::Stream stream,
             int64_t buffer_elements)
      : checkpoint_(&checkpoint), stream_(stream), buffer_elements_(buffer_elements) {}
  void add(formats::WeightId id, Float16* to, bool rotated);

  const formats::Checkpoint* checkpoint_;
  kernels::cuda::Stream stream_;
  int64_t buffer_elements_;
  kernels::cuda::Arena pinned_;
  std::vector<Float16*> buffers_;  // two for each thread
  std::vector<Piece> pieces_;      // in the order of the file, more or less
};

}  // namespace puna::engine
