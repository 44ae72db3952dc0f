// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <sstream>

#include "formats/known_specs.h"
#include "kv/block_id.h"
#include "kv/block_pool.h"
#include "kv/prefix_cache.h"
#include "plan/byte_size.h"
#include "plan/capacity.h"
#include "plan/gpu_model.h"
#include "plan/host_kv.h"
#include "plan/known_devices.h"
#include "plan/ledger.h"
#include "plan/memory_model.h"
#include "plan/system_memory.h"
#include "plan/test_sizes.h"

namespace puna::plan {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(ByteSize, ReadsEverySuffix) {
  EXPECT_EQ(*parse_budget("1024", 0), 1024U);
  EXPECT_EQ(*parse_budget("7B", 0), 7U);
  EXPECT_EQ(*parse_budget("512MiB", 0), 512 * kMiB);
  EXPECT_EQ(*parse_budget("1.5 GiB", 0), kGiB + kGiB / 2);
  EXPECT_EQ(*parse_budget("2GB", 0), 2'000'000'000U);
  EXPECT_EQ(*parse_budget("80%", 1000), 800U);
  EXPECT_EQ(*parse_budget("0.5%", 1000), 5U);
}

TEST(ByteSize, RefusesWhatIsNoSize) {
  for (const char* text : {"", "x", "-1GiB", "0", "0%", "101%", "1GiBs", "1 gib", "nan", "inf",
                           "1e400", "99999999TiB", "5MiB5"}) {
    EXPECT_FALSE(parse_budget(text, kGiB).ok()) << text;
  }
  EXPECT_THAT(parse_budget("lots", kGiB).error().message(), HasSubstr("\"lots\""));
}

TEST(ByteSize, WritesOneDecimal) {
  EXPECT_EQ(format_bytes(0), "0 B");
  EXPECT_EQ(format_bytes(1023), "1023 B");
  EXPECT_EQ(format_bytes(1536), "1.5 KiB");
  EXPECT_EQ(format_bytes(kMiB - 1), "1.0 MiB");
  EXPECT_EQ(format_bytes(20 * kGiB), "20.0 GiB");
}

// A made-up machine: files below a temporary folder.
class SystemMemoryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/puna_plan_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    root_ = pattern;
    write("/proc/meminfo", "MemTotal: 8192 kB\nMemFree: 10 kB\nMemAvailable: 6144 kB\n");
  }
  void TearDown() override { std::filesystem::remove_all(root_); }
  void write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text;
  }
  std::string root_;
};

TEST_F(SystemMemoryTest, WithoutGroupsTheMachineCounts) {
  const auto memory = read_system_memory(root_);
  ASSERT_TRUE(memory.ok());
  EXPECT_EQ(memory->total, 8192U * 1024);
  EXPECT_EQ(memory->available, 6144U * 1024);
}

TEST_F(SystemMemoryTest, Version2LimitOfAParentGroupCounts) {
  write("/proc/self/cgroup", "0::/pods/one\n");
  write("/sys/fs/cgroup/pods/one/memory.max", "max\n");
  write("/sys/fs/cgroup/pods/memory.max", "4194304\n");
  write("/sys/fs/cgroup/pods/memory.current", "3145728\n");
  write("/sys/fs/cgroup/pods/memory.stat",
        "anon 1048576\ninactive_file 1048576\nactive_file 1048576\n");
  const auto memory = read_system_memory(root_);
  ASSERT_TRUE(memory.ok());
  EXPECT_EQ(memory->total, 4194304U);
  EXPECT_EQ(memory->available, 3145728U);  // page cache counts as free
}

TEST_F(SystemMemoryTest, Version1LimitCounts) {
  write("/proc/self/cgroup", "10:cpu:/docker/x\n9:memory:/docker/x\n");
  write("/sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes", "2097152\n");
  write("/sys/fs/cgroup/memory/docker/x/memory.usage_in_bytes", "524288\n");
  const auto memory = read_system_memory(root_);
  ASSERT_TRUE(memory.ok());
  EXPECT_EQ(memory->total, 2097152U);
  EXPECT_EQ(memory->available, 1572864U);
}

TEST_F(SystemMemoryTest, NoMeminfoIsAnError) {
  std::filesystem::remove(root_ + "/proc/meminfo");
  EXPECT_FALSE(read_system_memory(root_).ok());
}

// A model with 100 MiB of weights and 32 KiB of keys and values per token.
constexpr uint64_t kTokenBytes = 32 << 10;
engine::CpuBackendBytes small_model(const engine::CpuBackendConfig& config) {
  engine::CpuBackendBytes bytes;
  bytes.mapped = 90 * kMiB;
  bytes.weights = 10 * kMiB;
  bytes.loading = 2 * kMiB;
  bytes.kv = 4096 + static_cast<uint64_t>(config.num_blocks) * kv::kBlockTokens * kTokenBytes;
  bytes.activations = static_cast<uint64_t>(config.max_batch_tokens) * 16384;
  bytes.sampling = kMiB;
  return bytes;
}

PlanRequest request() {
  PlanRequest request;
  request.model = "small.gguf";
  request.threads = 2;
  request.max_num_seqs = kDefaultNumSeqs;
  request.max_batch_tokens = kDefaultBatchTokens;
  return request;
}

TEST(MemoryModel, KvBytesPerTokenLeavesOutWhatIsConstant) {
  EXPECT_EQ(kv_bytes_per_token(small_model), kTokenBytes);
}

TEST(MemoryModel, TheTypeOfKvSetsThePoolAndReachesTheBackend) {
  const auto by_type = [](const engine::CpuBackendConfig& config) {
    engine::CpuBackendBytes bytes = small_model(config);
    if (config.kv_type == kernels::KvType::kInt8) bytes.kv /= 4;
    return bytes;
  };
  for (const kernels::KvType type : {kernels::KvType::kF32, kernels::KvType::kInt8}) {
    PlanRequest asked = request();
    asked.kv_type = type;
    asked.activations = kernels::ActivationMode::kFloat;
    const auto plan = plan_memory(by_type, kContext, asked, {64 * kGiB, 60 * kGiB});
    ASSERT_TRUE(plan.ok()) << plan.error().message();
    const bool small = type == kernels::KvType::kInt8;
    EXPECT_EQ(plan->of(Owner::kKvPool), 32 * 512 * kTokenBytes / (small ? 4 : 1));
    EXPECT_THAT(plan->table(), HasSubstr(small ? "int8: " : "f32: "));
    EXPECT_EQ(backend_config(*plan, asked).kv_type, type);
    EXPECT_EQ(backend_config(*plan, asked).activations, kernels::ActivationMode::kFloat);
  }
}

TEST(MemoryModel, DefaultPoolIsSensibleOnALargeMachine) {
  const auto plan = plan_memory(small_model, kContext, request(), {64 * kGiB, 60 * kGiB});
  ASSERT_TRUE(plan.ok()) << plan.error().message();
  EXPECT_EQ(plan->max_model_len, kContext);
  EXPECT_EQ(plan->num_blocks, 32 * 512 / kv::kBlockTokens);
  EXPECT_EQ(plan->of(Owner::kKvPool), 32 * 512 * kTokenBytes);
  EXPECT_LE(plan->total(), plan->budget);
}

TEST(MemoryModel, DefaultPoolTakesAtMostAQuarterOfASmallMachine) {
  const auto plan = plan_memory(small_model, kContext, request(), {kGiB, 800 * kMiB});
  ASSERT_TRUE(plan.ok()) << plan.error().message();
  EXPECT_LE(plan->of(Owner::kKvPool), 200 * kMiB);
  EXPECT_GT(plan->of(Owner::kKvPool), 190 * kMiB);
  EXPECT_EQ(plan->max_model_len, plan->num_blocks * kv::kBlockTokens);  // what fits
}

TEST(MemoryModel, ABudgetIsUsedUpButNeverExceeded) {
  for (const uint64_t mib : {300U, 512U, 1000U, 4000U}) {
    PlanRequest asked = request();
    asked.budget_bytes = mib * kMiB;
    const auto plan = plan_memory(small_model, kContext, asked, {64 * kGiB, 60 * kGiB});
    ASSERT_TRUE(plan.ok()) << plan.error().message();
    EXPECT_LE(plan->total(), asked.budget_bytes);
    // What is left is less than a block and what a shorter context saved.
    EXPECT_GT(plan->total() + 64 * kMiB, asked.budget_bytes);
  }
}

TEST(MemoryModel, NeverMoreBlocksThanEverySequenceCanUse) {
  PlanRequest asked = request();
  asked.max_model_len = 100;  // 7 blocks
  asked.max_num_seqs = 3;
  asked.budget_bytes = 32 * kGiB;
  const auto plan = plan_memory(small_model, kContext, asked, {64 * kGiB, 60 * kGiB});
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->num_blocks, 21);
  EXPECT_EQ(plan->max_model_len, 100);
}

TEST(MemoryModel, AChosenContextMayTakeMoreThanTheDefaultShare) {
  PlanRequest asked = request();
  asked.max_model_len = kContext;
  const auto plan = plan_memory(small_model, kContext, asked, {kGiB, 800 * kMiB});
  ASSERT_TRUE(plan.ok()) << plan.error().message();
  EXPECT_EQ(plan->max_model_len, kContext);
  EXPECT_GE(plan->num_blocks, kContext / kv::kBlockTokens);
}

TEST(MemoryModel, WhatDoesNotFitNamesTheNumbersAndTheFlag) {
  PlanRequest asked = request();
  asked.budget_bytes = 64 * kMiB;
  const auto too_small = plan_memory(small_model, kContext, asked, {64 * kGiB, 60 * kGiB});
  ASSERT_FALSE(too_small.ok());
  EXPECT_EQ(too_small.error().code(), ErrorCode::kResourceExhausted);
  EXPECT_THAT(too_small.error().message(), HasSubstr("small.gguf needs"));
  EXPECT_THAT(too_small.error().message(), HasSubstr("weights 100.0 MiB"));
  EXPECT_THAT(too_small.error().message(), HasSubstr("--memory-budget is 64.0 MiB"));

  // The advice is true: with the size that the message names, it starts.
  const std::string& message = too_small.error().message();
  const std::string lead = "at least ";
  const std::string advised = message.substr(message.rfind(lead) + lead.size());
  asked.budget_bytes = *parse_budget(advised, 0);
  EXPECT_TRUE(plan_memory(small_model, kContext, asked, {64 * kGiB, 60 * kGiB}).ok());
}

TEST(MemoryModel, AContextThatDoesNotFitNamesOneThatDoes) {
  PlanRequest asked = request();
  asked.budget_bytes = 300 * kMiB;
  asked.max_model_len = kContext;
  const auto refused = plan_memory(small_model, kContext, asked, {64 * kGiB, 60 * kGiB});
  ASSERT_FALSE(refused.ok());
  const std::string& message = refused.error().message();
  const std::string lead = "lower --max-model-len to ";
  ASSERT_THAT(message, HasSubstr(lead));
  asked.max_model_len = std::stoi(message.substr(message.rfind(lead) + lead.size()));
  EXPECT_TRUE(plan_memory(small_model, kContext, asked, {64 * kGiB, 60 * kGiB}).ok());
}

TEST(MemoryModel, AContextBeyondTheModelsIsRefused) {
  PlanRequest asked = request();
  asked.max_model_len = kContext + 1;
  const auto refused = plan_memory(small_model, kContext, asked, {64 * kGiB, 60 * kGiB});
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code(), ErrorCode::kInvalidArgument);
  EXPECT_THAT(refused.error().message(), HasSubstr("8193"));
}

TEST(MemoryModel, TableFitsTheScreenAndAddsUp) {
  const auto plan = plan_memory(small_model, kContext, request(), {64 * kGiB, 60 * kGiB});
  ASSERT_TRUE(plan.ok());
  std::istringstream lines(plan->table());
  std::string line;
  while (std::getline(lines, line)) EXPECT_LE(line.size(), 80U) << line;
  EXPECT_THAT(plan->table(), HasSubstr("512.0 MiB  bf16: 16384 tokens in 1024 blocks"));
  EXPECT_THAT(plan->table(), HasSubstr("while loading"));
  EXPECT_EQ(std::accumulate(plan->bytes.begin(), plan->bytes.end(), uint64_t{0}), plan->total());
}

TEST(MemoryModel, ABlockInTheTablesTakesWhatThePlanSays) {
  if (heap_bytes() == 0) GTEST_SKIP() << "the sanitizer owns the heap";
  constexpr int32_t kBlocks = 50'000;
  const uint64_t before = heap_bytes();
  kv::BlockPool pool(kBlocks);
  const kv::PrefixCache cache(pool, 1);
  const auto each = static_cast<double>(heap_bytes() - before) / kBlocks;
  PlanRequest asked = request();
  asked.max_model_len = kContext;
  const MemoryPlan plan = full_plan(small_model, asked, 1, 1, kContext, 0);
  const double planned = static_cast<double>(plan.of(Owner::kKvIndex)) / plan.num_blocks;
  EXPECT_LE(each, planned);
  EXPECT_GE(each, planned * 0.7);
}

PlanRequest open_request() {
  PlanRequest asked = request();
  asked.max_num_seqs = 0;
  asked.max_batch_tokens = 0;
  return asked;
}

TEST(MemoryModel, WhatIsLeftOpenShrinksWithTheBudget) {
  MemoryPlan before;
  for (const uint64_t mib : {130U, 160U, 300U, 2000U}) {
    PlanRequest asked = open_request();
    asked.budget_bytes = mib * kMiB;
    const auto plan = plan_memory(small_model, kContext, asked, {64 * kGiB, 60 * kGiB});
    ASSERT_TRUE(plan.ok()) << plan.error().message();
    EXPECT_LE(plan->total(), asked.budget_bytes);
    EXPECT_GE(plan->max_num_seqs, before.max_num_seqs);
    EXPECT_GE(plan->max_batch_tokens, before.max_batch_tokens);
    EXPECT_GE(plan->host.max_connections, before.host.max_connections);
    EXPECT_GE(plan->host.max_body_bytes, before.host.max_body_bytes);
    EXPECT_GE(plan->host.max_request_bytes, before.host.max_request_bytes);
    EXPECT_GE(plan->max_batch_tokens, plan->max_num_seqs);
    before = *plan;
  }
  EXPECT_EQ(before.max_num_seqs, kDefaultNumSeqs);
  EXPECT_EQ(before.max_batch_tokens, kDefaultBatchTokens);
  PlanRequest asked = open_request();
  asked.budget_bytes = 130 * kMiB;
  EXPECT_LT(plan_memory(small_model, kContext, asked, {64 * kGiB, 60 * kGiB})->max_num_seqs, 8);
  asked.max_num_seqs = 8;  // what the user says is taken as it is
  EXPECT_EQ(plan_memory(small_model, kContext, asked, {64 * kGiB, 60 * kGiB})->max_num_seqs, 8);
}

TEST(MemoryModel, TheSmallestBudgetThatTheAdviceNamesWorksWithOpenLimits) {
  PlanRequest asked = open_request();
  asked.budget_bytes = 64 * kMiB;
  const auto refused = plan_memory(small_model, kContext, asked, {64 * kGiB, 60 * kGiB});
  ASSERT_FALSE(refused.ok());
  const std::string& message = refused.error().message();
  asked.budget_bytes = *parse_budget(message.substr(message.rfind("at least ") + 9), 0);
  const auto plan = plan_memory(small_model, kContext, asked, {64 * kGiB, 60 * kGiB});
  ASSERT_TRUE(plan.ok()) << plan.error().message();
  EXPECT_GE(plan->max_model_len, 128);
  asked.budget_bytes -= 2 * kMiB;
  EXPECT_FALSE(plan_memory(small_model, kContext, asked, {64 * kGiB, 60 * kGiB}).ok());
}

TEST(MemoryModel, PagesOfTheMatrixThatIsPackedHaveToFitToo) {
  const auto one_matrix = [](const engine::CpuBackendConfig& config) {
    engine::CpuBackendBytes bytes = small_model(config);
    bytes.loading = 400 * kMiB;
    return bytes;
  };
  PlanRequest asked = open_request();
  asked.budget_bytes = 400 * kMiB;
  EXPECT_FALSE(plan_memory(one_matrix, kContext, asked, {64 * kGiB, 60 * kGiB}).ok());
  asked.budget_bytes = 420 * kMiB;
  EXPECT_TRUE(plan_memory(one_matrix, kContext, asked, {64 * kGiB, 60 * kGiB}).ok());
}

TEST(Capacity, IsTheLargestThatFits) {
  PlanRequest asked = request();
  asked.budget_bytes = 2 * kGiB;
  asked.max_model_len = 1024;
  const auto plan = plan_memory(small_model, kContext, asked, {64 * kGiB, 60 * kGiB});
  ASSERT_TRUE(plan.ok()) << plan.error().message();
  const Capacity found = capacity(small_model, kContext, asked, *plan);
  const auto total = [&](int32_t sequences, int32_t context) {
    return full_plan(small_model, asked, sequences, plan->max_batch_tokens, context, kHostSizes - 1)
        .total();
  };
  EXPECT_GT(found.most_sequences, 40);  // 32 MiB each
  EXPECT_LE(total(found.most_sequences, 1024), asked.budget_bytes);
  EXPECT_GT(total(found.most_sequences + 1, 1024), asked.budget_bytes);
  EXPECT_GT(found.longest_context, 1024);
  EXPECT_LE(total(32, found.longest_context), asked.budget_bytes);
  EXPECT_GT(total(32, found.longest_context + 16), asked.budget_bytes);
}

TEST(Shapes, HaveTheSizesOfTheModels) {
  for (const auto& [name, millions] :
       std::vector<std::pair<const char*, double>>{{"llama-3-8b", 8030},
                                                   {"llama-3.2-1b", 1236},
                                                   {"llama-3.2-3b", 3213},
                                                   {"llama-3.1-70b", 70554},
                                                   {"llama-2-7b", 6738},
                                                   {"smollm2-135m", 134.5}}) {
    const auto spec = formats::known_spec(name);
    ASSERT_TRUE(spec.ok()) << spec.error().message();
    const auto checkpoint = formats::Checkpoint::of_shape(*spec, formats::TensorType::kBF16, name);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.error().message();
    EXPECT_NEAR(static_cast<double>(checkpoint->weight_bytes()) / 2e6, millions, millions * 1e-3);
    EXPECT_THAT(formats::known_spec_names(), HasSubstr(name));
  }
  const auto odd = formats::Checkpoint::of_shape(formats::known_spec("smollm2-135m").value(),
                                                 formats::TensorType::kQ4_K, "odd");
  ASSERT_FALSE(odd.ok());  // 576 values are not whole blocks of 256
  EXPECT_THAT(odd.error().message(), HasSubstr("Q4_K"));
}

TEST(Shapes, AShapeIsPlannedLikeAFile) {
  const auto checkpoint = formats::Checkpoint::of_shape(formats::known_spec("llama-3-8b").value(),
                                                        formats::TensorType::kQ4_K, "8b");
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.error().message();
  const auto plan = plan_memory(*checkpoint, open_request(), {64 * kGiB, 60 * kGiB});
  ASSERT_TRUE(plan.ok()) << plan.error().message();
  // 7.5 billion weights in packed layers and head, half a billion of the table in place.
  EXPECT_NEAR(static_cast<double>(plan->of(Owner::kWeightsPacked)), 7.5e9 * 4.5 / 8, 0.15e9);
  EXPECT_NEAR(static_cast<double>(plan->of(Owner::kWeightsMapped)), 0.525e9 * 4.5 / 8, 0.01e9);
  EXPECT_NEAR(static_cast<double>(plan->of(Owner::kKvPool)), 2147483648.0, 1e6);
}

TEST(Shapes, AnEightBillionModelOnGpus) {
  const formats::ModelSpec spec = formats::known_spec("llama-3-8b").value();
  const BackendCost cost = [&](const engine::CpuBackendConfig& config) {
    return gpu_bytes(spec, config);
  };
  EXPECT_EQ(kv_bytes_per_token(cost), 128U * 1024);
  PlanRequest asked = open_request();
  asked.on_device = true;
  asked.runtime_bytes = kGpuRuntimeBytes;
  for (const auto& [name, sequences] :
       std::vector<std::pair<const char*, int>>{{"h100-80g", 60}, {"a100-40g", 20}}) {
    const KnownDevice* device = find_device(name);
    ASSERT_NE(device, nullptr);
    asked.budget_bytes = device->memory;
    const auto plan = plan_memory(cost, spec.max_position, asked, {device->memory, device->memory});
    ASSERT_TRUE(plan.ok()) << plan.error().message();
    EXPECT_NEAR(static_cast<double>(plan->of(Owner::kWeightsPacked)), 16.06e9, 0.05e9);
    EXPECT_EQ(plan->of(Owner::kConnections), 0U);  // the host's memory
    EXPECT_THAT(plan->table(), HasSubstr("f16: "));
    EXPECT_THAT(plan->table(), Not(HasSubstr("bf16: ")));
    const Capacity found = capacity(cost, spec.max_position, asked, *plan);
    EXPECT_GE(found.most_sequences, sequences - 10);  // of a GiB each
    EXPECT_LE(found.most_sequences, sequences + 10);
    const Speed speed =
        estimate_speed(spec, *plan, 128 * 1024, {device->read_per_s, device->bf16_ops_per_s});
    EXPECT_NEAR(speed.decode_alone, device->read_per_s / 15.6e9, 10);  // weights but the table
    EXPECT_GT(speed.decode_together, 5 * speed.decode_alone);
    EXPECT_LT(speed.prefill, device->bf16_ops_per_s / 14e9);
  }
  EXPECT_EQ(estimate_speed(spec, {}, 1, {}).prefill, 0);  // an unknown machine
}

TEST(Shapes, AGpuHasLargerStepsUnlessFlagsSayOtherwise) {
  const formats::ModelSpec spec = formats::known_spec("llama-3-8b").value();
  const BackendCost cost = [&](const engine::CpuBackendConfig& config) {
    return gpu_bytes(spec, config);
  };
  PlanRequest asked = open_request();
  asked.on_device = true;
  asked.runtime_bytes = kGpuRuntimeBytes;
  const auto step = [&](int32_t sequences, int32_t tokens, uint64_t gib) {
    asked.max_num_seqs = sequences;
    asked.max_batch_tokens = tokens;
    asked.budget_bytes = gib * kGiB;
    const auto plan = plan_memory(cost, spec.max_position, asked, {gib * kGiB, gib * kGiB});
    EXPECT_TRUE(plan.ok());
    return std::pair(plan->max_num_seqs, plan->max_batch_tokens);
  };
  EXPECT_EQ(step(0, 0, 80), std::pair(kGpuNumSeqs, kGpuBatchTokens));
  EXPECT_EQ(step(9, 0, 80), std::pair(9, kGpuBatchTokens));
  EXPECT_EQ(step(3000, 0, 200), std::pair(3000, 3000));
  EXPECT_EQ(step(0, 777, 80), std::pair(kGpuNumSeqs, 777));
  EXPECT_EQ(step(0, 100, 80), std::pair(100, 100));
  EXPECT_LT(step(0, 0, 20).first, kGpuNumSeqs);  // as many as can work with what is left
}

TEST(HostKv, ADefaultASizeAShareOrNone) {
  EXPECT_EQ(*host_kv_bytes("", 60 * kGiB, 64 * kGiB), kDefaultHostKvBytes);
  EXPECT_EQ(*host_kv_bytes("", 4 * kGiB, 64 * kGiB), kGiB);
  EXPECT_EQ(*host_kv_bytes("0", 60 * kGiB, 64 * kGiB), 0U);
  EXPECT_EQ(*host_kv_bytes("512MiB", 60 * kGiB, 64 * kGiB), 512 * kMiB);
  EXPECT_EQ(*host_kv_bytes("25%", 60 * kGiB, 64 * kGiB), 16 * kGiB);
  const auto too_much = host_kv_bytes("61GiB", 60 * kGiB, 64 * kGiB);
  ASSERT_FALSE(too_much.ok());
  EXPECT_EQ(too_much.error().code(), ErrorCode::kResourceExhausted);
  EXPECT_THAT(too_much.error().message(), HasSubstr("--host-kv-memory 61GiB"));
  EXPECT_THAT(too_much.error().message(), HasSubstr("60.0 GiB"));
  for (const char* text : {"lots", "-1GiB", "0%", "101%"}) {
    const auto wrong = host_kv_bytes(text, 60 * kGiB, 64 * kGiB);
    ASSERT_FALSE(wrong.ok()) << text;
    EXPECT_THAT(wrong.error().message(), HasSubstr("--host-kv-memory"));
  }
}

TEST(HostKv, IsPlannedLikeAllElse) {
  PlanRequest asked = open_request();
  asked.host_kv_bytes = 200 * kMiB;
  asked.budget_bytes = 600 * kMiB;
  const auto plan = plan_memory(small_model, kContext, asked, {64 * kGiB, 60 * kGiB});
  ASSERT_TRUE(plan.ok()) << plan.error().message();
  EXPECT_EQ(plan->of(Owner::kHostKv), 200 * kMiB);
  EXPECT_LE(plan->total(), asked.budget_bytes);
  EXPECT_THAT(plan->table(), HasSubstr("host KV"));
  const Ledger ledger(*plan);
  EXPECT_EQ(ledger.used({.host_kv_usage = 0.25})[index_of(Owner::kHostKv)], 50 * kMiB);

  // Where it is too much, the message says what would do.
  asked.budget_bytes = 300 * kMiB;
  const auto refused = plan_memory(small_model, kContext, asked, {64 * kGiB, 60 * kGiB});
  ASSERT_FALSE(refused.ok());
  const std::string& message = refused.error().message();
  EXPECT_THAT(message, HasSubstr("host KV 200.0 MiB"));
  const std::string lead = "lower --host-kv-memory to ";
  ASSERT_THAT(message, HasSubstr(lead));
  asked.host_kv_bytes = *parse_budget(message.substr(message.rfind(lead) + lead.size()), 0);
  EXPECT_TRUE(plan_memory(small_model, kContext, asked, {64 * kGiB, 60 * kGiB}).ok());
}

TEST(LedgerTest, PlannedAndUsedByOwner) {
  const auto plan = plan_memory(small_model, kContext, request(), {64 * kGiB, 60 * kGiB});
  ASSERT_TRUE(plan.ok());
  const Ledger ledger(*plan);
  const LiveUse use{.kv_usage = 0.25,
                    .requests_waiting = 3,
                    .tokens_waiting = 99,
                    .request_bytes = 1000,
                    .body_bytes = 77,
                    .connections = 2};
  const auto used = ledger.used(use);
  EXPECT_EQ(used[index_of(Owner::kKvPool)], 128 * kMiB);
  EXPECT_EQ(used[index_of(Owner::kRequests)], 1000U);
  EXPECT_EQ(used[index_of(Owner::kBodies)], 77U);
  EXPECT_EQ(used[index_of(Owner::kActivations)], plan->of(Owner::kActivations));
  EXPECT_EQ(used[index_of(Owner::kConnections)] * static_cast<uint64_t>(plan->host.max_connections),
            2 * plan->of(Owner::kConnections));
  EXPECT_THAT(ledger.json(use),
              HasSubstr(R"({"owner":"kv_pool","planned_bytes":536870912,"used_bytes":134217728})"));
  EXPECT_THAT(ledger.json(use), HasSubstr(R"("blocks":1024,"blocks_used":256)"));
  EXPECT_THAT(ledger.metrics(use), HasSubstr("puna:memory_bytes{owner=\"kv_pool\"} 536870912\n"));
  EXPECT_THAT(ledger.metrics(use),
              HasSubstr("puna:memory_used_bytes{owner=\"request_bodies\"} 77\n"));
  EXPECT_THAT(ledger.json(use), Not(HasSubstr("device")));
}

TEST(LedgerTest, AGpusOwnersStandBesideTheHosts) {
  auto plan = plan_memory(small_model, kContext, request(), {64 * kGiB, 60 * kGiB});
  ASSERT_TRUE(plan.ok());
  plan->of(Owner::kKvPool) = 0;
  plan->num_blocks = 1000;
  const DeviceMemory device = {
      .name = "GPU",
      .free_before = 10 * kGiB,
      .free_after = 4 * kGiB,
      .owners = {{"weights", "f16", 3 * kGiB}, {kDeviceKvPool, "f16 keys and values", 4096000}}};
  EXPECT_THAT(device.table(), HasSubstr("3.0 GiB  f16\n"));
  EXPECT_THAT(device.table(), HasSubstr("of 10.0 GiB free before, 6.0 GiB taken\n"));
  const Ledger ledger(*plan, device);
  const LiveUse use{.kv_usage = 0.25};
  const std::string json = ledger.json(use);
  EXPECT_THAT(json, HasSubstr(R"({"owner":"kv_pool","planned_bytes":0,"used_bytes":0})"));
  EXPECT_THAT(json, EndsWith(R"("device":{"name":"GPU","free_before_bytes":10737418240,)"
                             R"("planned_bytes":3225321472,"taken_bytes":6442450944,"owners":[)"
                             R"({"owner":"weights","planned_bytes":3221225472,)"
                             R"("used_bytes":3221225472},{"owner":"kv_pool",)"
                             R"("planned_bytes":4096000,"used_bytes":1024000}]}})"));
  const std::string metrics = ledger.metrics(use);
  EXPECT_THAT(metrics, HasSubstr("puna:device_memory_bytes{owner=\"kv_pool\"} 4096000\n"));
  EXPECT_THAT(metrics, HasSubstr("puna:device_memory_used_bytes{owner=\"kv_pool\"} 1024000\n"));
}

TEST(MemoryModel, RealModelFitsASmallBudget) {
  const char* path = std::getenv("PUNA_TEST_MODEL");
  if (path == nullptr) GTEST_SKIP() << "PUNA_TEST_MODEL is not set";
  const auto checkpoint = formats::Checkpoint::open(path);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.error().message();
  PlanRequest asked = request();
  asked.budget_bytes = kGiB;
  const auto plan = plan_memory(*checkpoint, asked, {64 * kGiB, 60 * kGiB});
  ASSERT_TRUE(plan.ok()) << plan.error().message();
  EXPECT_LE(plan->total(), kGiB);
  // Every weight is held once at least: mapped or packed.
  EXPECT_GE(plan->of(Owner::kWeightsMapped) + plan->of(Owner::kWeightsPacked),
            checkpoint->weight_bytes());
  EXPECT_GE(plan->max_model_len, 1024);
}

}  // namespace
}  // namespace puna::plan
