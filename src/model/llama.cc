// SPDX-License-Identifier: Apache-2.0
#include "model/llama.h"

#include <cmath>
#include <utility>

#include "base/check.h"

namespace puna::model {
namespace {

using formats::ModelSpec;
using kernels::Activations;
using kernels::FloatRows;
using kernels::Ops;

kernels::KvShape kv_shape(const ModelSpec& spec, const LlamaLimits& limits) {
  return {.num_layers = spec.num_layers,
          .num_blocks = limits.num_blocks,
          .num_heads = spec.num_heads,
          .num_kv_heads = spec.num_kv_heads,
          .head_dim = spec.head_dim,
          .type = limits.kv_type};
}

// theta^(-2i / head_dim) / divisor, rounded to f32 where transformers rounds.
std::vector<float> inverse_frequencies(const ModelSpec& spec) {
  std::vector<float> result;
  for (int32_t i = 0; i < spec.head_dim / 2; ++i) {
    const double exponent = 2.0 * i / spec.head_dim;
    const double divisor = static_cast<double>(spec.rope_divisors[static_cast<size_t>(i)]);
    const auto frequency = static_cast<float>(1.0 / std::pow(spec.rope_theta, exponent));
    result.push_back(static_cast<float>(static_cast<double>(frequency) / divisor));
  }
  return result;
}

}  // namespace

// Lays the activations out one after another: run over a null base it counts their bytes.
class ActivationArena {
 public:
  ActivationArena(const Ops& ops, std::byte* base) : ops_(ops), base_(base) {}

  FloatRows floats(int64_t rows, int64_t columns) {
    const auto bytes =
        static_cast<uint64_t>(rows * kernels::padded_columns(columns)) * sizeof(float);
    return {reinterpret_cast<float*>(take(bytes)), columns};
  }
  Activations activations(int64_t rows, int64_t columns) {
    return {take(ops_.activation_bytes(rows, columns)), columns};
  }
  uint64_t used() const { return used_; }

 private:
  std::byte* take(uint64_t bytes) {
    std::byte* piece = base_ == nullptr ? nullptr : base_ + used_;
    used_ += (bytes + 63) / 64 * 64;
    return piece;
  }

  const Ops& ops_;
  std::byte* const base_;
  uint64_t used_ = 0;
};

Llama::Views Llama::Views::of(ActivationArena& arena, const ModelSpec& spec,
                              const LlamaLimits& limits) {
  return {.residual = arena.floats(limits.max_rows, spec.hidden_size),
          .normed = arena.activations(limits.max_rows, spec.hidden_size),
          .rotations = arena.floats(limits.max_rows, spec.head_dim),
          .queries = arena.floats(limits.max_rows, spec.q_size()),
          .attended = arena.activations(limits.max_rows, spec.q_size()),
          .ffn = arena.activations(limits.max_rows, spec.intermediate_size),
          .logits_in = arena.activations(limits.max_logit_rows, spec.hidden_size),
          .logits = arena.floats(limits.max_logit_rows, spec.vocab_size)};
}

LlamaBytes Llama::bytes(const formats::Checkpoint& checkpoint, const Ops& ops,
                        const LlamaLimits& limits) {
  ActivationArena arena(ops, nullptr);
  Views::of(arena, checkpoint.spec(), limits);
  return {.weights = Weights::bytes(checkpoint, ops),
          .kv = ops.kv_bytes(kv_shape(checkpoint.spec(), limits)),
          .activations = arena.used()};
}

Result<Llama> Llama::create(const formats::Checkpoint& checkpoint, const Ops& ops,
                            const LlamaLimits& limits) {
  const ModelSpec& spec = checkpoint.spec();
  const LlamaBytes bytes = Llama::bytes(checkpoint, ops, limits);
  RETURN_IF_ERROR(ops.check_shape(kv_shape(spec, limits)));
  ASSIGN_OR_RETURN(Weights weights, Weights::load(checkpoint, ops));
  Llama llama(std::move(weights));
  llama.spec_ = &spec;
  llama.ops_ = &ops;
  llama.inverse_frequency_ = inverse_frequencies(spec);
  ASSIGN_OR_RETURN(llama.kv_memory_, ops.allocate(bytes.kv, "the KV cache"));
  ASSIGN_OR_RETURN(llama.activation_memory_, ops.allocate(bytes.activations, "activations"));
  llama.kv_ = {kv_shape(spec, limits), llama.kv_memory_.data()};

  ActivationArena arena(ops, llama.activation_memory_.data());
  llama.views_ = Views::of(arena, spec, limits);
  return llama;
}

void Llama::forward(kernels::Lane& lane, const LlamaStep& step) const {
  ops_->embed(lane, weights_.embedding(), step.tokens, views_.residual);
  ops_->rotations(lane, step.sequences, inverse_frequency_, views_.rotations);
  lane.sync();
  for (int32_t index = 0; index < spec_->num_layers; ++index) layer(lane, step, index);
  if (step.logit_rows.empty()) return;
  const auto num_logits = static_cast<int32_t>(step.logit_rows.size());
  ops_->rms_norm(lane, views_.residual, step.logit_rows, num_logits,
                 weights_.output_norm().values(), spec_->rms_norm_eps, views_.logits_in);
  lane.sync();
  ops_->matmul(lane, views_.logits_in, num_logits, weights_.head(), views_.logits);
}

void Llama::layer(kernels::Lane& lane, const LlamaStep& step, int32_t index) const {
  const LayerWeights& w = weights_.layers()[static_cast<size_t>(index)];
  const auto rows = static_cast<int32_t>(step.tokens.size());
  const float eps = spec_->rms_norm_eps;

  ops_->rms_norm(lane, views_.residual, {}, rows, w.attn_norm.values(), eps, views_.normed);
  lane.sync();
  ops_->matmul_qkv(lane, views_.normed, *w.qkv, views_.rotations, step.sequences, kv_, index,
                   views_.queries);
  lane.sync();
  ops_->attention(lane, views_.queries, step.sequences, kv_, index, views_.attended);
  lane.sync();
  ops_->matmul_add(lane, views_.attended, rows, *w.attn_output, views_.residual);
  lane.sync();
  ops_->rms_norm(lane, views_.residual, {}, rows, w.ffn_norm.values(), eps, views_.normed);
  lane.sync();
  ops_->matmul_swiglu(lane, views_.normed, rows, *w.gate_up, views_.ffn);
  lane.sync();
  ops_->matmul_add(lane, views_.ffn, rows, *w.ffn_down, views_.residual);
  lane.sync();
}

}  // namespace puna::model
