// SPDX-License-Identifier: Apache-2.0
// A Llama on the GPU: weights, KV blocks and activations in one device arena, and the forward pass
// of a step as a list of kernels on one stream. It allocates nothing after create().
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/numeric.h"
#include "base/result.h"
#include "engine/cuda_host_kv.h"
#include "formats/checkpoint.h"
#include "formats/model_spec.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/gated_product.h"
#include "kernels/cuda/gemm.h"

namespace puna::engine {

struct CudaLlamaLimits {
  int32_t max_rows = 512;  // tokens in a step
  int32_t max_logit_rows = 32;
  int32_t max_positions = 2048;
  int32_t num_blocks = 0;       // of KV
  std::string tuning_folder{};  // where the products' choices are kept; empty: nowhere
};

// Bytes of the device arena, by owner.
struct CudaLlamaBytes {
  uint64_t weights = 0;
  uint64_t kv = 0;
  uint64_t activations = 0;
  uint64_t attention = 0;  // partial results of decode rows
  uint64_t total() const { return weights + kv + activations + attention; }
};

// A step as device pointers. Rows are padded: what is beyond decode rows and tiles is not attended.
struct CudaStep {
  int32_t rows = 0;
  const int32_t* tokens = nullptr;       // [rows], -1: the slot's last token
  const int32_t* slots = nullptr;        // [rows]
  const int32_t* last_tokens = nullptr;  // [slots]
  const int32_t* positions = nullptr;    // [rows]
  const int32_t* cells = nullptr;        // [rows], -1: not stored
  const int32_t* block_tables = nullptr;
  const kernels::cuda::DecodeItem* decode_items = nullptr;
  const int32_t* num_decode_items = nullptr;
  kernels::cuda::DecodeWay decode_way = kernels::cuda::DecodeWay::kChunks;
  int32_t num_decode_rows = 0;  // padded as `rows`; they come first
  const kernels::cuda::QueryTile* tiles = nullptr;
  int32_t num_tiles = 0;
  const int32_t* logit_rows = nullptr;  // [num_logits]
  int32_t num_logits = 0;
  // Where there are tiles, the last layer attends rows with logits only, as decode rows.
  const kernels::cuda::DecodeItem* last_items = nullptr;  // rows count those with logits
  const int32_t* num_last_items = nullptr;
  kernels::cuda::DecodeWay last_way = kernels::cuda::DecodeWay::kChunks;
  const int32_t* last_positions = nullptr;  // [num_logits]
};

class CudaLlama {
 public:
  // Errors: kUnsupported for a shape beyond the kernels, kResourceExhausted with the bytes.
  // Without a checkpoint the weights are random, of the spec's shape.
  static Result<std::unique_ptr<CudaLlama>> create(const formats::ModelSpec& spec,
                                                   const formats::Checkpoint* checkpoint,
                                                   const CudaLlamaLimits& limits,
                                                   const kernels::cuda::DeviceFacts& device,
                                                   kernels::cuda::Stream stream);
  static CudaLlamaBytes bytes(const formats::ModelSpec& spec, const CudaLlamaLimits& limits);
  // Of one KV block, all layers.
  static uint64_t kv_block_bytes(const formats::ModelSpec& spec);
  static Result<> check(const formats::ModelSpec& spec);

  const formats::ModelSpec& spec() const { return spec_; }
  // Enqueues the step; logits() row i is then that of step.logit_rows[i].
  void forward(const CudaStep& step, kernels::cuda::Stream stream) const;
  const float* logits() const { return work_.logits; }  // [*, vocab_size]
  // Thread blocks that decode attention shares a step's rows among.
  int32_t decode_blocks() const { return decode_blocks_; }
  CudaKvBlocks kv_blocks() const;
  std::string gemm_summary() const;
  // Why the choices can't be kept, or empty.
  const std::string& tuning_problem() const { return library_->tunings().problem(); }

 private:
  struct Layer {
    float* attn_norm = nullptr;
    Float16* qkv = nullptr;  // [q_size + 2 * kv_size, hidden]
    Float16* attn_output = nullptr;
    float* ffn_norm = nullptr;
    Float16* gate_up = nullptr;
    Float16* down = nullptr;
    Float16* kv = nullptr;
  };
  struct Work {
    float* residual = nullptr;
    float* last_residual = nullptr;  // [max_logit_rows, hidden]
    Float16* normed = nullptr;
    Float16* qkv = nullptr;
    Float16* queries = nullptr;
    Float16* attended = nullptr;
    Float16* gate_up = nullptr;
    Float16* ffn = nullptr;
    float* pieces = nullptr;
    Float16* logits_in = nullptr;
    float* logits = nullptr;
    float* rotations = nullptr;
  };
  using GemmPtr = std::unique_ptr<kernels::cuda::Gemm>;

  explicit CudaLlama(const formats::ModelSpec& spec, const CudaLlamaLimits& limits)
      : spec_(spec), limits_(limits) {}
  void lay_out();
  Result<> load(const formats::Checkpoint& checkpoint, kernels::cuda::Stream stream);
  void fill(kernels::cuda::Stream stream);
  void upload_rotations();
  Result<> prepare_gemms(const kernels::cuda::DeviceFacts& device, kernels::cuda::Stream stream);
  // Of a layer's normed rows, with keys and values into their blocks where attend() does not.
  void project(const CudaStep& step, const Layer& layer, kernels::cuda::Stream stream) const;
  void attend(const CudaStep& step, const Layer& layer, kernels::cuda::Stream stream) const;
  // The last layer's, of rows with logits: their queries and residual are the first ones then.
  void attend_logit_rows(const CudaStep& step, const Layer& layer,
                         kernels::cuda::Stream stream) const;
  kernels::cuda::AttentionArgs attention_args(const CudaStep& step, const Layer& layer,
                                              const Float16* queries) const;
  // From what was attended to the residual's next pieces, pending.
  void finish(const Layer& layer, float* residual, int32_t rows,
              kernels::cuda::Stream stream) const;
  // Adds `parts` pieces to the residual and norms it.
  void norm(float* residual, int32_t rows, const int32_t* row_index, int32_t parts,
            const float* weight, Float16* out, kernels::cuda::Stream stream) const;
  int64_t piece_stride() const;

  const formats::ModelSpec spec_;
  const CudaLlamaLimits limits_;
  kernels::cuda::Arena arena_;
  int32_t decode_blocks_ = 0;  // one for each multiprocessor
  Float16* embedding_ = nullptr;
  Float16* head_ = nullptr;
  float* output_norm_ = nullptr;
  std::vector<Layer> layers_;
  Work work_;
  kernels::cuda::DecodeScratch scratch_ = {};
  std::shared_ptr<kernels::cuda::GemmLibrary> library_;
  GemmPtr qkv_gemm_;
  GemmPtr attn_output_gemm_;
  std::unique_ptr<kernels::cuda::GatedProduct> gate_up_;
  GemmPtr down_gemm_;
  GemmPtr head_gemm_;
};

}  // namespace puna::engine
