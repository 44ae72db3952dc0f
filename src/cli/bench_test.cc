// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "cli/bench_machine.h"
#include "cli/commands.h"
#include "cli/engine_bench.h"
#include "cli/kernel_bench.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/machine_roof.h"
#include "plan/system_memory.h"

namespace puna::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Takes a nanosecond a token, checks what it is given, and samples each item's own position.
class RecordingBackend final : public engine::Backend {
 public:
  RecordingBackend(const engine::BackendLimits& limits, VirtualClock& clock)
      : limits_(limits), clock_(clock) {}

  std::string_view name() const override { return "recording"; }
  const engine::BackendLimits& limits() const override { return limits_; }
  void start(const engine::Batch& batch) override {
    int32_t tokens = 0;
    samples_.clear();
    std::set<kv::BlockId> seen;
    for (const engine::BatchItem& item : batch.items) {
      const int32_t end = item.first_position + item.num_tokens;
      ASSERT_LE(end, limits_.max_model_len);
      ASSERT_EQ(item.tokens.size(), static_cast<size_t>(item.num_tokens));
      ASSERT_EQ(item.history.size(), static_cast<size_t>(end));
      for (const engine::TokenId token : item.tokens) ASSERT_LT(token, limits_.vocab_size);
      for (const kv::BlockId block : item.block_table) {
        ASSERT_LT(block, limits_.num_blocks);
        ASSERT_TRUE(seen.insert(block).second) << "two sequences share block " << block;
      }
      tokens += item.num_tokens;
      if (item.sample) samples_.emplace_back().token = end % limits_.vocab_size;
    }
    ASSERT_EQ(tokens, batch.num_tokens);
    ASSERT_EQ(samples_.size(), static_cast<size_t>(batch.num_samples));
    ASSERT_LE(tokens, limits_.max_batch_tokens);
    steps_.push_back(tokens);
    clock_.advance(tokens);
  }
  std::span<const engine::SampledToken> collect() override { return samples_; }
  const std::vector<int32_t>& steps() const { return steps_; }

 private:
  engine::BackendLimits limits_;
  VirtualClock& clock_;
  std::vector<engine::SampledToken> samples_;
  std::vector<int32_t> steps_;  // tokens of each
};

constexpr engine::BackendLimits kLimits = {.num_blocks = 64,
                                           .max_num_seqs = 4,
                                           .max_batch_tokens = 128,
                                           .max_model_len = 200,
                                           .vocab_size = 50};

TEST(EngineBench, MakesTheStepsThatServeWouldMake) {
  VirtualClock clock;
  RecordingBackend backend(kLimits, clock);
  const EngineTimes times =
      time_engine(backend, clock, {.batch = 3, .prompt = 150, .output = 2, .chunk = 64});
  // 450 prompt tokens: chunks of at most 64, steps of at most 128; three times; two decode steps.
  std::vector<int32_t> once = {128, 128, 108, 64, 22};
  EXPECT_EQ(std::accumulate(once.begin(), once.end(), 0), 450);
  std::vector<int32_t> expected;
  for (int i = 0; i < 3; ++i) expected.insert(expected.end(), once.begin(), once.end());
  expected.insert(expected.end(), {3, 3});
  EXPECT_EQ(backend.steps(), expected);
  EXPECT_THAT(times.prefill, ElementsAre(450, 450, 450));
  EXPECT_THAT(times.steps, ElementsAre(3, 3));
}

TEST(EngineBench, QuantilesAreNearestRanks) {
  std::vector<TimeNs> values(100);
  std::iota(values.begin(), values.end(), 1);
  EXPECT_EQ(quantile(values, 0.5), 50);
  EXPECT_EQ(quantile(values, 0.99), 99);
  EXPECT_EQ(quantile({7}, 0.99), 7);
  EXPECT_EQ(quantile({3, 1, 2}, 0.5), 2);
}

TEST(EngineBench, CountsWhatAModelMustReadAndCompute) {
  const auto checkpoint =
      formats::Checkpoint::open(std::string(PUNA_GOLDEN_DIR) + "/tiny_llama_hf");
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.error().message();
  const formats::ModelSpec& spec = checkpoint->spec();
  const ModelWork work = ModelWork::of(*checkpoint, 100);
  const double layer = 1.0 * spec.hidden_size * (2 * spec.q_size() + 2 * spec.kv_size()) +
                       3.0 * spec.hidden_size * spec.intermediate_size;
  const double head = 1.0 * spec.hidden_size * spec.vocab_size;
  EXPECT_DOUBLE_EQ(work.layer_ops, 2 * layer * spec.num_layers);
  EXPECT_DOUBLE_EQ(work.head_ops, 2 * head);
  // Every tensor but the embedding is read by each step.
  const auto embedding = checkpoint->tensor({formats::WeightRole::kTokenEmbedding}).data.size();
  EXPECT_DOUBLE_EQ(work.layer_bytes + work.head_bytes,
                   static_cast<double>(checkpoint->weight_bytes() - embedding));
  EXPECT_DOUBLE_EQ(work.decode_bytes(4, 10) - work.decode_bytes(1, 10), 3 * 10 * 100);
  EXPECT_DOUBLE_EQ(work.decode_ops(2, 0), 2 * (work.layer_ops + work.head_ops));
  // Two rows see one and two positions; in the last layer the first one leaves after its K and V.
  const double rest = 1.0 * spec.hidden_size * (spec.q_size() + 3.0 * spec.intermediate_size);
  EXPECT_DOUBLE_EQ(work.last_ops, 2 * rest);
  EXPECT_DOUBLE_EQ(work.prefill_ops(2), 2 * work.layer_ops - work.last_ops + work.head_ops +
                                            (3 - 1.0 / spec.num_layers) * work.attention_ops);
  EXPECT_DOUBLE_EQ(ModelWork::in_16_bits(spec).last_ops, work.last_ops);
}

TEST(MachineRoof, IsMeasuredForEveryInstructionSet) {
  for (const std::string_view isa : kernels::available_isas()) {
    const auto meter = kernels::RoofMeter::create(isa, 2);
    ASSERT_TRUE(meter.ok()) << meter.error().message();
    const kernels::MachineRoof roof = (*meter)->measure();
    EXPECT_GT(roof.read_gb_per_s, 0.1) << isa;
    EXPECT_GT(roof.read_gb_per_s_one_thread, 0.1) << isa;
    EXPECT_GT(roof.int8_gop_per_s, 0.1) << isa;
    EXPECT_GT(roof.f32_gflop_per_s, 0.1) << isa;
    EXPECT_EQ(roof.bf16_gflop_per_s > 0, isa == "avx512_bf16") << isa;
    // Memory gives no more than 2 TB/s, two cores no more than 100 TOP/s: the loops do run.
    EXPECT_LT(roof.read_gb_per_s, 2e3) << isa;
    EXPECT_LT(roof.int8_gop_per_s, 1e5) << isa;
    EXPECT_LT(roof.f32_gflop_per_s, 1e5) << isa;
  }
}

TEST(MachineRoof, TheHigherOfTwoIsTakenFieldByField) {
  const kernels::MachineRoof roof = kernels::higher({1, 2, 3, 4, 5}, {2, 0, 0, 9, 0});
  EXPECT_EQ(roof.read_gb_per_s, 2);
  EXPECT_EQ(roof.read_gb_per_s_one_thread, 2);
  EXPECT_EQ(roof.int8_gop_per_s, 3);
  EXPECT_EQ(roof.bf16_gflop_per_s, 9);
  EXPECT_EQ(roof.f32_gflop_per_s, 5);
}

TEST(MachineFacts, NamesTheMachine) {
  const auto facts = machine_facts(0, "");
  ASSERT_TRUE(facts.ok());
  EXPECT_FALSE(facts->cpu.empty());
  EXPECT_EQ(facts->threads, facts->cores);
  EXPECT_EQ(facts->isa, kernels::available_isas().back());
  EXPECT_EQ(machine_facts(3, "")->threads, 3);
  EXPECT_FALSE(machine_facts(0, "sse").ok());
  EXPECT_EQ(machine_json(*facts).at("cpu").as_string(), facts->cpu);
  EXPECT_THAT(machine_text(*facts), HasSubstr(facts->isa));
}

TEST(KernelBench, TimesWhatTheFilterNames) {
  const auto ops = kernels::make_cpu_ops("").value();
  const auto pool = kernels::ThreadPool::create(2).value();
  const KernelBench bench(*ops, *pool, [](const std::string& name) {
    return name == "matmul_swiglu/Q4_0/2" || name == "rms_norm/f32/4" ||
           name == "decode@512/f32x64/1";
  });
  const auto matrices = bench.matrices(formats::TensorType::kQ4_0);
  ASSERT_TRUE(matrices.ok()) << matrices.error().message();
  ASSERT_EQ(matrices->size(), 1U);
  const KernelTime& time = matrices->front();
  EXPECT_EQ(time.op, "matmul_swiglu");
  EXPECT_EQ(time.type, "Q4_0");
  EXPECT_EQ(time.rows, 2);
  EXPECT_GT(time.time_ns, 0);
  EXPECT_DOUBLE_EQ(time.bytes, 2.0 * 4096 * 4096 / 32 * 18);
  EXPECT_DOUBLE_EQ(time.operations, 2 * 2 * 2.0 * 4096 * 4096);
  EXPECT_TRUE(bench.matrices(formats::TensorType::kQ8_0)->empty());

  const auto attention = bench.attention(kernels::KvType::kF32, 64);
  ASSERT_TRUE(attention.ok());
  ASSERT_EQ(attention->size(), 1U);
  EXPECT_NEAR(attention->front().bytes, 512.0 * 8 * 64 * 2 * 4, 1024);  // and some scratch
  EXPECT_EQ(bench.norms(kernels::ActivationType::kF32)->size(), 1U);
}

TEST(BenchCommand, RefusesWhatCannotRun) {
  const std::string model = std::string(PUNA_GOLDEN_DIR) + "/tiny_llama_hf";
  const auto message = [](const auto& flags, auto command) {
    const Result<int> result = command(flags);
    EXPECT_FALSE(result.ok());
    if (result.ok()) return std::string();
    EXPECT_NE(result.error().code(), ErrorCode::kInternal) << "exit code 2";
    return result.error().message();
  };
  BenchEngineFlags engine;
  engine.model.model = model;
  engine.prompt = 1 << 20;
  EXPECT_THAT(message(engine, bench_engine), HasSubstr("--prompt 1048576"));
  engine.prompt = 16;
  engine.output = 4;
  engine.batch = {2, 4000};
  // Enough for the weights and the largest step, whatever this process holds already (sanitizers
  // hold much), but not for that many sequences' keys and values.
  engine.model.memory_budget = std::to_string((plan::runtime_bytes(0) >> 20) + 40) + "MiB";
  EXPECT_THAT(message(engine, bench_engine), HasSubstr("--batch 4000"));
  engine.model.model = "/no/such.gguf";
  EXPECT_THAT(message(engine, bench_engine), HasSubstr("/no/such.gguf"));
  BenchKernelsFlags kernels;
  kernels.filter = "(";
  EXPECT_THAT(message(kernels, bench_kernels), HasSubstr("--filter ("));
  kernels.filter = "no such case";
  EXPECT_THAT(message(kernels, bench_kernels), HasSubstr("matches none"));
}

}  // namespace
}  // namespace puna::cli
