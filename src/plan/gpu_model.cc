// SPDX-License-Identifier: Apache-2.0
#include "plan/gpu_model.h"

#include "kv/block_id.h"

namespace puna::plan {
namespace {

constexpr uint64_t kHalf = 2;
constexpr uint64_t kFloat = 4;

uint64_t product(int64_t a, int64_t b) {
  return static_cast<uint64_t>(a) * static_cast<uint64_t>(b);
}

}  // namespace

engine::CpuBackendBytes gpu_bytes(const formats::ModelSpec& spec,
                                  const engine::CpuBackendConfig& config) {
  const int64_t hidden = spec.hidden_size;
  const int64_t inner = spec.intermediate_size;
  const int64_t q = spec.q_size();
  const int64_t qkv = q + 2 * int64_t{spec.kv_size()};
  const auto layers = static_cast<uint64_t>(spec.num_layers);
  const auto rows = static_cast<uint64_t>(config.max_batch_tokens);
  const auto logit_rows = static_cast<uint64_t>(config.max_num_seqs);
  engine::CpuBackendBytes bytes;
  bytes.weights =
      (spec.tied_head ? 1 : 2) * kHalf * product(spec.vocab_size, hidden) +
      layers * kHalf * (product(hidden, qkv) + product(hidden, q) + 3 * product(hidden, inner)) +
      (2 * layers + 1) * kFloat * static_cast<uint64_t>(hidden);
  bytes.kv = layers * kHalf * 2 * product(config.num_blocks, spec.kv_size()) * kv::kBlockTokens;
  // Residual and one piece of a product in f32; normed, q|k|v, queries, attended, gate|up, ffn.
  const uint64_t row = 2 * kFloat * static_cast<uint64_t>(hidden) +
                       kHalf * static_cast<uint64_t>(hidden + qkv + 2 * q + 3 * inner);
  bytes.activations = rows * row + product(config.max_model_len, spec.head_dim) * kFloat;
  bytes.sampling = logit_rows * ((kHalf + kFloat) * static_cast<uint64_t>(hidden) +
                                 kFloat * static_cast<uint64_t>(spec.vocab_size));
  return bytes;
}

}  // namespace puna::plan
