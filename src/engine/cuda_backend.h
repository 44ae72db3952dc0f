// SPDX-License-Identifier: Apache-2.0
// The CUDA backend: a CudaLlama on one GPU, the step's words in pinned memory, and a captured graph
// for each number of decoding rows. The GPU samples; a request that asks for logprobs, penalties,
// biases or bans is sampled on the host from its row of logits. A program built without CUDA has
// make_cuda_backend() too: it says so.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"
#include "engine/backend.h"
#include "formats/checkpoint.h"
#include "formats/model_spec.h"

namespace puna::engine {

struct CudaBackendConfig {
  int32_t device = 0;
  int32_t num_blocks = 0;       // 0: as many as fit in the GPU memory that is free
  int32_t num_host_blocks = 0;  // for paused sequences, at most num_blocks
  int32_t max_num_seqs = 32;
  int32_t max_batch_tokens = 2048;
  int32_t max_model_len = 2048;
  bool graphs = true;
  std::string tuning_folder{};     // where the products' choices are kept between starts; or empty
  int32_t step_limit_ms = 60'000;  // a step that takes longer ends the process: the GPU is lost
};

// What the GPU gave and what was taken of it, in bytes.
struct CudaBackendFacts {
  std::string device;
  uint64_t free_before = 0;
  uint64_t free_after = 0;
  uint64_t weights = 0;
  uint64_t kv = 0;
  uint64_t activations = 0;
  uint64_t attention = 0;
  uint64_t pinned = 0;         // of the host: a step's words, logits
  uint64_t host_kv = 0;        // pinned as well: blocks of paused sequences
  std::string products;        // cuBLASLt's choices
  std::string tuning_problem;  // why they can't be kept; or empty
};

struct CudaBackend {
  std::unique_ptr<Backend> backend;
  CudaBackendFacts facts;
};

// Errors: kUnavailable without CUDA, a driver, that GPU or cuBLASLt; kUnsupported for a shape
// beyond the kernels; kResourceExhausted with the bytes. `checkpoint` is read during the call only.
Result<CudaBackend> make_cuda_backend(const formats::Checkpoint& checkpoint,
                                      const CudaBackendConfig& config);
// Random weights of a spec's shape, made on the GPU: for measuring speed.
Result<CudaBackend> make_random_cuda_backend(const formats::ModelSpec& spec,
                                             const CudaBackendConfig& config);

// How long the GPU takes for the last step, a graph's, in ms: launched `times` times in a row with
// no host between. What a step takes beyond that is the host's. 0 if that step was no graph's.
// Between steps; `backend` is one of those above.
double time_cuda_graph(Backend& backend, int32_t times);

// Bytes of that GPU's memory now. Errors as above.
struct CudaMemory {
  uint64_t total = 0;
  uint64_t free = 0;
};
Result<CudaMemory> cuda_memory(int32_t device);

// What that GPU reads from its memory at most, in GB/s; takes 2 GiB of it for the call.
Result<double> measure_cuda_read(int32_t device);

}  // namespace puna::engine
