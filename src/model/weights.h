// SPDX-License-Identifier: Apache-2.0
// A Llama's weights, packed for a device by its Ops: matrices that are multiplied together are one,
// and every model rotates interleaved pairs, whatever layout its file has. Immutable after load.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/result.h"
#include "formats/checkpoint.h"
#include "kernels/ops.h"

namespace puna::model {

// [hidden_size] f32, zero-padded.
struct NormWeights {
  kernels::Buffer memory;
  const float* values() const { return reinterpret_cast<const float*>(memory.data()); }
};

struct LayerWeights {
  NormWeights attn_norm;
  std::unique_ptr<kernels::PackedMatrix> qkv;          // [q_size + 2 * kv_size, hidden_size]
  std::unique_ptr<kernels::PackedMatrix> attn_output;  // [hidden_size, q_size]
  NormWeights ffn_norm;
  std::unique_ptr<kernels::PackedMatrix> gate_up;   // [2 * intermediate_size, hidden_size]
  std::unique_ptr<kernels::PackedMatrix> ffn_down;  // [hidden_size, intermediate_size]
};

// Told during load() how many of the file's weight bytes are done.
using LoadProgress = std::function<void(uint64_t done, uint64_t total)>;

struct WeightBytes {
  uint64_t packed = 0;  // taken besides the file
  uint64_t mapped = 0;  // of the file, used in place
  // While loading, at most so much more than `packed` is resident: pages of the file that are being
  // packed, which are dropped after it.
  uint64_t loading = 0;
};

class Weights {
 public:
  // The checkpoint must outlive the weights: some are used in place. The file's pages are dropped
  // as soon as what they hold is packed.
  static Result<Weights> load(const formats::Checkpoint& checkpoint, const kernels::Ops& ops,
                              const LoadProgress& progress = {});
  static WeightBytes bytes(const formats::Checkpoint& checkpoint, const kernels::Ops& ops);

  const kernels::PackedMatrix& embedding() const {
    return embedding_ != nullptr ? *embedding_ : *head_;
  }
  const kernels::PackedMatrix& head() const { return *head_; }
  const NormWeights& output_norm() const { return output_norm_; }
  const std::vector<LayerWeights>& layers() const { return layers_; }

 private:
  // For look-ups, in place. None when the head is the same matrix and packed: its rows are read
  // from there, so that the file's pages are not needed beside the copy.
  std::unique_ptr<kernels::PackedMatrix> embedding_;
  std::unique_ptr<kernels::PackedMatrix> head_;
  NormWeights output_norm_;
  std::vector<LayerWeights> layers_;
};

}  // namespace puna::model
