// SPDX-License-Identifier: Apache-2.0
#include "cli/engine_bench.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "base/check.h"
#include "engine/batch.h"
#include "kv/block_id.h"

namespace puna::cli {
namespace {

using engine::TokenId;

constexpr size_t kPrefillTimes = 3;
constexpr TimeNs kPrefillBudget = kNsPerSecond;
constexpr uint32_t kSeed = 20;

struct BenchSequence {
  std::vector<TokenId> tokens;  // prompt and output so far, with room for all of it
  std::vector<kv::BlockId> blocks;
  int32_t computed = 0;
};

// The sequences of a case, and the steps that take them forward.
class BenchRun {
 public:
  BenchRun(engine::Backend& backend, const Clock& clock, const EngineBenchCase& work);
  TimeNs prefill();
  TimeNs decode_step();

 private:
  void add_item(size_t index, int32_t num_tokens);
  TimeNs run_step();

  engine::Backend& backend_;
  const Clock& clock_;
  const EngineBenchCase work_;
  engine::SamplingParams sampling_;
  std::vector<BenchSequence> sequences_;
  engine::Batch batch_;
};

BenchRun::BenchRun(engine::Backend& backend, const Clock& clock, const EngineBenchCase& work)
    : backend_(backend), clock_(clock), work_(work) {
  const engine::BackendLimits& limits = backend.limits();
  const int32_t length = work.prompt + work.output;
  const int32_t blocks = kv::blocks_for_tokens(length);
  CHECK(work.batch <= limits.max_num_seqs && length <= limits.max_model_len);
  CHECK_LE(static_cast<int64_t>(work.batch) * blocks, limits.num_blocks);
  sampling_.temperature = 0;
  std::mt19937 random(kSeed);
  sequences_.resize(static_cast<size_t>(work.batch));
  kv::BlockId next_block = 0;
  for (BenchSequence& sequence : sequences_) {
    sequence.tokens.reserve(static_cast<size_t>(length) + 1);
    for (int32_t i = 0; i < work.prompt; ++i) {
      sequence.tokens.push_back(
          static_cast<TokenId>(random() % static_cast<uint32_t>(limits.vocab_size)));
    }
    sequence.blocks.resize(static_cast<size_t>(blocks));
    std::iota(sequence.blocks.begin(), sequence.blocks.end(), next_block);
    next_block += blocks;
  }
  batch_.items.reserve(sequences_.size());
}

void BenchRun::add_item(size_t index, int32_t num_tokens) {
  BenchSequence& sequence = sequences_[index];
  const int32_t end = sequence.computed + num_tokens;
  engine::BatchItem item;
  item.slot = static_cast<int32_t>(index);
  item.first_position = sequence.computed;
  item.num_tokens = num_tokens;
  item.history = std::span(sequence.tokens).first(static_cast<size_t>(end));
  item.tokens = item.history.last(static_cast<size_t>(num_tokens));
  item.block_table = sequence.blocks;
  item.sample = end >= work_.prompt;
  item.sampling = &sampling_;
  item.prompt_tokens = work_.prompt;
  batch_.items.push_back(item);
  batch_.num_tokens += num_tokens;
  batch_.num_samples += item.sample ? 1 : 0;
}

// Runs the batch and appends what it sampled.
TimeNs BenchRun::run_step() {
  const TimeNs before = clock_.now_ns();
  backend_.start(batch_);
  const std::span<const engine::SampledToken> samples = backend_.collect();
  const TimeNs took = clock_.now_ns() - before;
  CHECK_EQ(samples.size(), static_cast<size_t>(batch_.num_samples));
  size_t sample = 0;
  for (const engine::BatchItem& item : batch_.items) {
    BenchSequence& sequence = sequences_[static_cast<size_t>(item.slot)];
    sequence.computed += item.num_tokens;
    if (item.sample) sequence.tokens.push_back(samples[sample++].token);
  }
  ++batch_.step;
  batch_.items.clear();
  batch_.num_tokens = 0;
  batch_.num_samples = 0;
  return took;
}

// As the scheduler fills steps: prompts in order, a chunk of each, until the step is full.
TimeNs BenchRun::prefill() {
  for (BenchSequence& sequence : sequences_) {
    sequence.computed = 0;
    sequence.tokens.resize(static_cast<size_t>(work_.prompt));
  }
  TimeNs took = 0;
  for (size_t first = 0; first < sequences_.size();) {
    int32_t budget = backend_.limits().max_batch_tokens;
    for (size_t i = first; i < sequences_.size() && budget > 0; ++i) {
      const int32_t left = work_.prompt - sequences_[i].computed;
      const int32_t num_tokens = std::min({left, work_.chunk, budget});
      add_item(i, num_tokens);
      budget -= num_tokens;
    }
    took += run_step();
    while (first < sequences_.size() && sequences_[first].computed >= work_.prompt) ++first;
  }
  return took;
}

TimeNs BenchRun::decode_step() {
  for (size_t i = 0; i < sequences_.size(); ++i) add_item(i, 1);
  return run_step();
}

double matrix_values(const formats::TensorView& tensor) {
  return static_cast<double>(tensor.rows) * static_cast<double>(tensor.columns);
}

}  // namespace

EngineTimes time_engine(engine::Backend& backend, const Clock& clock, const EngineBenchCase& work) {
  BenchRun run(backend, clock, work);
  EngineTimes times;
  const TimeNs end = clock.now_ns() + kPrefillBudget;
  do {
    times.prefill.push_back(run.prefill());
  } while (times.prefill.size() < kPrefillTimes && clock.now_ns() < end);
  times.steps.reserve(static_cast<size_t>(work.output));
  for (int32_t i = 0; i < work.output; ++i) times.steps.push_back(run.decode_step());
  return times;
}

ModelWork ModelWork::of(const formats::Checkpoint& checkpoint, uint64_t kv_bytes_per_token) {
  using formats::WeightRole;
  constexpr WeightRole kMatrices[] = {
      WeightRole::kAttnQ,   WeightRole::kAttnK, WeightRole::kAttnV,  WeightRole::kAttnOutput,
      WeightRole::kFfnGate, WeightRole::kFfnUp, WeightRole::kFfnDown};
  const formats::ModelSpec& spec = checkpoint.spec();
  ModelWork work;
  for (int32_t layer = 0; layer < spec.num_layers; ++layer) {
    for (const WeightRole role : kMatrices) {
      const formats::TensorView& tensor = checkpoint.tensor({role, layer});
      work.layer_bytes += static_cast<double>(tensor.data.size());
      work.layer_ops += 2 * matrix_values(tensor);
      const bool for_all =
          role == WeightRole::kAttnQ || role == WeightRole::kAttnK || role == WeightRole::kAttnV;
      if (layer + 1 == spec.num_layers && !for_all) work.last_ops += 2 * matrix_values(tensor);
    }
    for (const WeightRole role : {WeightRole::kAttnNorm, WeightRole::kFfnNorm}) {
      work.layer_bytes += static_cast<double>(checkpoint.tensor({role, layer}).data.size());
    }
  }
  const formats::TensorView& head = checkpoint.tensor({WeightRole::kOutputHead});
  work.head_bytes = static_cast<double>(head.data.size() +
                                        checkpoint.tensor({WeightRole::kOutputNorm}).data.size());
  work.head_ops = 2 * matrix_values(head);
  work.kv_bytes = static_cast<double>(kv_bytes_per_token);
  work.attention_ops = 4.0 * spec.q_size() * spec.num_layers;
  work.num_layers = spec.num_layers;
  return work;
}

ModelWork ModelWork::in_16_bits(const formats::ModelSpec& spec) {
  const double hidden = spec.hidden_size;
  const double layers = spec.num_layers;
  const double layer =
      hidden * (2.0 * spec.q_size() + 2.0 * spec.kv_size()) + 3.0 * hidden * spec.intermediate_size;
  const double head = hidden * spec.vocab_size;
  return {.layer_bytes = layers * (2 * layer + 2 * sizeof(float) * hidden),
          .head_bytes = 2 * head + sizeof(float) * hidden,
          .kv_bytes = 2 * 2.0 * spec.kv_size() * layers,
          .layer_ops = 2 * layer * layers,
          .head_ops = 2 * head,
          .attention_ops = 4.0 * spec.q_size() * layers,
          .num_layers = spec.num_layers,
          .last_ops = 2 * (layer - hidden * (spec.q_size() + 2.0 * spec.kv_size()))};
}

double ModelWork::decode_bytes(int32_t batch, double context) const {
  return layer_bytes + head_bytes + batch * context * kv_bytes;
}

double ModelWork::decode_ops(int32_t batch, double context) const {
  return batch * (layer_ops + head_ops + context * attention_ops);
}

double ModelWork::prefill_ops(int32_t tokens) const {
  const double seen = 0.5 * tokens * (tokens + 1.0);  // positions, summed over rows
  const double attended = (seen * (num_layers - 1) + tokens) / num_layers;  // in the last one row
  return tokens * layer_ops - (tokens - 1) * last_ops + head_ops + attended * attention_ops;
}

TimeNs quantile(std::vector<TimeNs> values, double fraction) {
  CHECK(!values.empty());
  const double rank = std::ceil(fraction * static_cast<double>(values.size())) - 1;
  const auto index = static_cast<std::ptrdiff_t>(std::max(rank, 0.0));
  std::nth_element(values.begin(), values.begin() + index, values.end());
  return values[static_cast<size_t>(index)];
}

}  // namespace puna::cli
