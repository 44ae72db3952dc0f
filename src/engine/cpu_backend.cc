// SPDX-License-Identifier: Apache-2.0
#include "engine/cpu_backend.h"

#include <algorithm>
#include <new>
#include <utility>
#include <vector>

#include "base/allocation_seal.h"
#include "base/check.h"
#include "engine/sampler.h"
#include "engine/softmax.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/thread_pool.h"
#include "kv/block_id.h"
#include "model/llama.h"

namespace puna::engine {
namespace {

static_assert(kernels::kKvBlockTokens == kv::kBlockTokens);

int32_t lanes_of(const CpuBackendConfig& config) {
  if (config.pool != nullptr) return config.pool->size();
  return config.threads > 0 ? config.threads : kernels::usable_cpus();
}

// What a Sampler takes from the heap: three arrays of four bytes a token, maxima (twice) and sums
// of its chunks, and the cut finder's buckets (measured by cpu_backend_test).
uint64_t sampler_bytes(int32_t vocab_size) {
  const auto vocab = static_cast<size_t>(vocab_size);
  constexpr uint64_t kBucketBytes = 1024 * (sizeof(int32_t) + sizeof(double));
  return 3 * sizeof(float) * padded_to_chunks(vocab) +
         (2 * sizeof(float) + sizeof(double)) * chunks_of(vocab) + kBucketBytes;
}

model::LlamaLimits llama_limits(const CpuBackendConfig& config) {
  return {.max_rows = config.max_batch_tokens,
          .max_logit_rows = config.max_num_seqs,
          .num_blocks = config.num_blocks,
          .kv_type = config.kv_type};
}

class CpuBackend final : public Backend {
 public:
  // `own_pool` is null when config.pool is another's.
  CpuBackend(std::unique_ptr<kernels::ThreadPool> own_pool, std::unique_ptr<kernels::Ops> ops,
             model::Llama llama, const CpuBackendConfig& config);

  std::string_view name() const override { return "cpu"; }
  const BackendLimits& limits() const override { return limits_; }
  void start(const Batch& batch) override;
  std::span<const SampledToken> collect() override {
    return {samples_.data(), sample_items_.size()};
  }

 private:
  void lay_out_rows(const Batch& batch);
  void check_item(const BatchItem& item) const;
  void sample(kernels::Lane& lane, const Batch& batch);

  const std::unique_ptr<kernels::ThreadPool> own_pool_;
  kernels::ThreadPool& pool_;
  const std::unique_ptr<kernels::Ops> ops_;
  const model::Llama llama_;
  BackendLimits limits_;
  std::vector<Sampler> samplers_;    // one per lane, or per slot if there are fewer
  std::vector<TokenId> last_token_;  // per slot: what the slot's last sampled step gave
  // The step as the model sees it; capacities are those of limits_.
  std::vector<int32_t> tokens_;
  std::vector<kernels::SequenceRows> sequences_;
  std::vector<int32_t> logit_rows_;
  std::vector<size_t> sample_items_;  // of the batch, in order
  std::vector<SampledToken> samples_;
};

CpuBackend::CpuBackend(std::unique_ptr<kernels::ThreadPool> own_pool,
                       std::unique_ptr<kernels::Ops> ops, model::Llama llama,
                       const CpuBackendConfig& config)
    : own_pool_(std::move(own_pool)),
      pool_(config.pool != nullptr ? *config.pool : *own_pool_),
      ops_(std::move(ops)),
      llama_(std::move(llama)),
      limits_{.num_blocks = config.num_blocks,
              .max_num_seqs = config.max_num_seqs,
              .max_batch_tokens = config.max_batch_tokens,
              .max_model_len = config.max_model_len,
              .vocab_size = llama_.spec().vocab_size} {
  const auto lanes = static_cast<size_t>(pool_.size());
  const auto slots = static_cast<size_t>(config.max_num_seqs);
  samplers_.reserve(lanes);
  for (size_t i = 0; i < std::min(lanes, slots); ++i)
    samplers_.emplace_back(limits_.vocab_size, config.isa);
  last_token_.assign(slots, -1);
  tokens_.reserve(static_cast<size_t>(config.max_batch_tokens));
  sequences_.reserve(slots);
  logit_rows_.reserve(slots);
  sample_items_.reserve(slots);
  samples_.resize(slots);
}

void CpuBackend::check_item(const BatchItem& item) const {
  CHECK(item.slot >= 0 && item.slot < limits_.max_num_seqs);
  CHECK(item.num_tokens >= 1 && item.first_position >= 0);
  CHECK_LE(item.first_position, limits_.max_model_len - item.num_tokens);
  CHECK(item.tokens.size() == static_cast<size_t>(item.num_tokens) ||
        (item.tokens.empty() && item.num_tokens == 1));
  const int32_t blocks = kv::blocks_for_tokens(item.first_position + item.num_tokens);
  CHECK_GE(item.block_table.size(), static_cast<size_t>(blocks));
  for (const kv::BlockId block : item.block_table.first(static_cast<size_t>(blocks))) {
    CHECK(block >= 0 && block < limits_.num_blocks);
  }
}

void CpuBackend::lay_out_rows(const Batch& batch) {
  CHECK_LE(batch.items.size(), static_cast<size_t>(limits_.max_num_seqs));
  tokens_.clear();
  sequences_.clear();
  logit_rows_.clear();
  sample_items_.clear();
  for (size_t index = 0; index < batch.items.size(); ++index) {
    const BatchItem& item = batch.items[index];
    check_item(item);
    const auto first_row = static_cast<int32_t>(tokens_.size());
    CHECK_LE(first_row, limits_.max_batch_tokens - item.num_tokens);
    sequences_.push_back({.first_row = first_row,
                          .num_rows = item.num_tokens,
                          .first_position = item.first_position,
                          .block_table = item.block_table.data()});
    if (item.tokens.empty()) {
      tokens_.push_back(last_token_[static_cast<size_t>(item.slot)]);
    } else {
      tokens_.insert(tokens_.end(), item.tokens.begin(), item.tokens.end());
    }
    if (item.sample) {
      logit_rows_.push_back(first_row + item.num_tokens - 1);
      sample_items_.push_back(index);
    }
  }
}

void CpuBackend::sample(kernels::Lane& lane, const Batch& batch) {
  const bool per_lane = samplers_.size() == static_cast<size_t>(lane.count());
  lane.deal(static_cast<int64_t>(sample_items_.size()), [&](int64_t row) {
    const auto i = static_cast<size_t>(row);
    Sampler& sampler = samplers_[per_lane ? static_cast<size_t>(lane.index()) : i];
    sampler.sample({llama_.logits().row(row), static_cast<size_t>(limits_.vocab_size)},
                   batch.items[sample_items_[i]], samples_[i]);
  });
}

void CpuBackend::start(const Batch& batch) {
  lay_out_rows(batch);
  if (tokens_.empty()) return;
  const model::LlamaStep step{tokens_, sequences_, logit_rows_};
  pool_.run([&](kernels::Lane& lane) {
    const SealedScope scope;
    llama_.forward(lane, step);
    lane.sync();
    sample(lane, batch);
  });
  for (size_t i = 0; i < sample_items_.size(); ++i) {
    last_token_[static_cast<size_t>(batch.items[sample_items_[i]].slot)] = samples_[i].token;
  }
}

Result<std::unique_ptr<Backend>> make_backend(const formats::Checkpoint& checkpoint,
                                              const CpuBackendConfig& config) {
  std::unique_ptr<kernels::ThreadPool> own_pool;
  if (config.pool == nullptr) {
    ASSIGN_OR_RETURN(own_pool, kernels::ThreadPool::create(lanes_of(config)));
  }
  kernels::ThreadPool* pool = config.pool != nullptr ? config.pool : own_pool.get();
  ASSIGN_OR_RETURN(
      std::unique_ptr<kernels::Ops> ops,
      kernels::make_cpu_ops(config.isa, {.activations = config.activations, .pool = pool}));
  ASSIGN_OR_RETURN(model::Llama llama, model::Llama::create(checkpoint, *ops, llama_limits(config),
                                                            config.load_progress));
  return std::unique_ptr<Backend>(
      std::make_unique<CpuBackend>(std::move(own_pool), std::move(ops), std::move(llama), config));
}

}  // namespace

CpuBackendBytes cpu_backend_bytes(const formats::Checkpoint& checkpoint,
                                  const CpuBackendConfig& config) {
  const kernels::CpuOptions options{.activations = config.activations};
  auto ops = kernels::make_cpu_ops(config.isa, options);
  if (!ops.ok())
    ops = kernels::make_cpu_ops("scalar", options);  // an ISA we lack: make_cpu_backend says so
  const model::LlamaBytes llama = model::Llama::bytes(checkpoint, **ops, llama_limits(config));
  return {.weights = llama.weights,
          .mapped = llama.mapped,
          .loading = llama.loading,
          .kv = llama.kv,
          .activations = llama.activations,
          .sampling = static_cast<uint64_t>(std::min(lanes_of(config), config.max_num_seqs)) *
                          sampler_bytes(checkpoint.spec().vocab_size) +
                      static_cast<uint64_t>(config.max_num_seqs) * sizeof(SampledToken)};
}

Result<std::unique_ptr<Backend>> make_cpu_backend(const formats::Checkpoint& checkpoint,
                                                  const CpuBackendConfig& config) {
  CHECK(config.num_blocks > 0 && config.max_num_seqs > 0 && config.max_batch_tokens > 0);
  CHECK_GT(config.max_model_len, 0);
  try {
    return make_backend(checkpoint, config);
  } catch (const std::bad_alloc&) {
    return Error(ErrorCode::kResourceExhausted,
                 "no memory for the CPU backend: {} bytes of sampling state",
                 cpu_backend_bytes(checkpoint, config).sampling);
  }
}

}  // namespace puna::engine
