// SPDX-License-Identifier: Apache-2.0
// The Llama forward pass as a list of ops. A Llama owns its weights, its KV cache and its
// activations, all allocated by create(); forward() allocates nothing. Several may share one Ops.
//
//   ASSIGN_OR_RETURN(Llama llama, Llama::create(checkpoint, ops, limits));
//   pool.run([&](Lane& lane) { llama.forward(lane, step); });
//   float* first = llama.logits().row(0);  // of row step.logit_rows[0]
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "formats/checkpoint.h"
#include "kernels/ops.h"
#include "model/weights.h"

namespace puna::model {

struct LlamaLimits {
  int32_t max_rows = 512;       // tokens in a step
  int32_t max_logit_rows = 32;  // rows of a step whose logits are wanted
  int32_t num_blocks = 0;       // of KV
  kernels::KvType kv_type = kernels::KvType::kF32;
};

struct LlamaBytes {
  uint64_t weights = 0;  // besides the mapped file
  uint64_t mapped = 0;   // of the file, used in place
  uint64_t loading = 0;  // of the file, besides `weights`, while they are packed
  uint64_t kv = 0;
  uint64_t activations = 0;
};

// Rows are tokens; each sequence's rows are consecutive, and together the sequences cover all rows.
struct LlamaStep {
  std::span<const int32_t> tokens;
  std::span<const kernels::SequenceRows> sequences;
  std::span<const int32_t> logit_rows;  // rising; also none
  // Rows without logits end with their keys and values of the last layer; true: with its output.
  bool every_row = false;
};

class Llama {
 public:
  // `checkpoint` and `ops` must outlive the object. Errors: kResourceExhausted with the bytes,
  // kUnsupported for a shape beyond the ops.
  static Result<Llama> create(const formats::Checkpoint& checkpoint, const kernels::Ops& ops,
                              const LlamaLimits& limits, const LoadProgress& progress = {});
  // What create() allocates.
  static LlamaBytes bytes(const formats::Checkpoint& checkpoint, const kernels::Ops& ops,
                          const LlamaLimits& limits);

  const formats::ModelSpec& spec() const { return *spec_; }

  // Called by every lane with the same step. After it, and after the lanes have joined or synced,
  // logits().row(i) belongs to step.logit_rows[i].
  void forward(kernels::Lane& lane, const LlamaStep& step) const;
  kernels::FloatRows logits() const { return views_.logits; }  // [max_logit_rows, vocab_size]

 private:
  // Pieces of activation_memory_, [max_rows, columns] unless said.
  struct Views {
    kernels::FloatRows residual;     // hidden_size
    kernels::Activations normed;     // hidden_size
    kernels::FloatRows rotations;    // head_dim
    kernels::FloatRows queries;      // q_size
    kernels::Activations attended;   // q_size
    kernels::Activations ffn;        // intermediate_size
    kernels::Activations logits_in;  // [max_logit_rows, hidden_size]
    kernels::FloatRows logits;       // [max_logit_rows, vocab_size]
    kernels::SequenceRows* last;     // [max_logit_rows], of the last layer
    static Views of(class ActivationArena& arena, const formats::ModelSpec& spec,
                    const LlamaLimits& limits);
  };

  explicit Llama(Weights weights) : weights_(std::move(weights)) {}
  // Queries of all rows, and their keys and values into the cache.
  void project(kernels::Lane& lane, const LlamaStep& step, int32_t index) const;
  // The rest of a layer, for the first `rows` rows of queries and residual.
  void finish(kernels::Lane& lane, std::span<const kernels::SequenceRows> sequences, int32_t rows,
              int32_t index) const;
  // Queries and residual of rows with logits become the first ones. One lane.
  void keep_logit_rows(const LlamaStep& step) const;
  // Waits for all lanes, then writes the norm of `num_rows` rows of the residual in the format that
  // `reader` wants, to be read after the call.
  kernels::Activations norm(kernels::Lane& lane, std::span<const int32_t> rows, int32_t num_rows,
                            const NormWeights& weight, const kernels::PackedMatrix& reader,
                            kernels::Activations out) const;

  const formats::ModelSpec* spec_ = nullptr;
  const kernels::Ops* ops_ = nullptr;
  Weights weights_;
  std::vector<float> inverse_frequency_;  // [head_dim / 2]
  kernels::Buffer kv_memory_;
  kernels::Buffer activation_memory_;
  kernels::KvCache kv_;
  Views views_;
};

}  // namespace puna::model
