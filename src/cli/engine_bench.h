// SPDX-License-Identifier: Apache-2.0
// Times a backend's steps as `serve` would make them: prompts in chunks, then sequences that decode
// together. `puna bench engine` prints it (bench_engine.cc). Main thread.
#pragma once

#include <cstdint>
#include <vector>

#include "base/clock.h"
#include "engine/backend.h"
#include "formats/checkpoint.h"

namespace puna::cli {

struct EngineBenchCase {
  int32_t batch = 1;     // sequences
  int32_t prompt = 512;  // tokens of each one's prompt
  int32_t output = 64;   // decode steps
  int32_t chunk = 256;   // most tokens of a prompt in a step
};

struct EngineTimes {
  std::vector<TimeNs> prefill;  // of all prompts of the batch, each time that was done
  std::vector<TimeNs> steps;    // of each decode step
};

// The prompts are computed at least three times, or as often as fits in a second. The backend's
// limits allow the case (CHECKed): blocks, sequences, context. Tokens are random, sampling is
// greedy.
EngineTimes time_engine(engine::Backend& backend, const Clock& clock, const EngineBenchCase& work);

// What a model's steps must read and compute at least: each weight once, as it lies in the file,
// and the keys and values that are looked at.
struct ModelWork {
  double layer_bytes = 0;    // weights of all layers
  double head_bytes = 0;     // output head and its norm
  double kv_bytes = 0;       // of one position
  double layer_ops = 0;      // of one row, without attention; a multiply-add is two
  double head_ops = 0;       // of one row whose logits are wanted
  double attention_ops = 0;  // of one row, for each position that it sees
  int32_t num_layers = 1;
  double last_ops = 0;  // of layer_ops, those that the last layer has for rows with logits only

  static ModelWork of(const formats::Checkpoint& checkpoint, uint64_t kv_bytes_per_token);
  // As a GPU holds it: matrices and KV in 16 bits, norms in f32.
  static ModelWork in_16_bits(const formats::ModelSpec& spec);
  // A decode step of `batch` sequences with `context` positions each.
  double decode_bytes(int32_t batch, double context) const;
  double decode_ops(int32_t batch, double context) const;
  // A prompt, in chunks or not.
  double prefill_ops(int32_t tokens) const;
};

// The nearest rank: quantile 0.5 is the median. `values` is not empty.
TimeNs quantile(std::vector<TimeNs> values, double fraction);

}  // namespace puna::cli
