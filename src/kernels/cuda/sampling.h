// SPDX-License-Identifier: Apache-2.0
// Rows of logits to one token each, in engine/sampler.h's order: temperature, top_k, top_p, min_p,
// draw in the order of the ids. Probabilities are integers of 2^-30 of the largest one's, so that
// sums don't depend on their order; a token below that is not drawn. What a row gives depends on
// its logits and parameters alone.
#pragma once

#include <cstdint>

#include "kernels/cuda/stream.h"

namespace puna::kernels::cuda {

struct alignas(16) SampleParams {
  double uniform;  // in [0, 1): which part of the probability is drawn
  float scale;     // 1 / temperature; 0: the largest logit's token
  float top_p;     // 1: all
  float min_p;     // of the largest probability
  int32_t top_k;   // 0: all
  int32_t unused[2];
};
static_assert(sizeof(SampleParams) == 32);

// tokens[row]; also last_tokens[slots[row]], unless the slot is -1. The token of the largest logit
// is the lowest such id; NaN ranks below all.
struct SampleArgs {
  const float* logits;         // [rows, vocab_size]
  const SampleParams* params;  // [rows]
  const int32_t* slots;
  int32_t* tokens;
  int32_t* last_tokens;
  int32_t rows;
  int32_t vocab_size;
};
void sample_tokens(const SampleArgs& args, Stream stream);

}  // namespace puna::kernels::cuda
