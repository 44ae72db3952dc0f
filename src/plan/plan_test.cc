// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "kv/block_id.h"
#include "plan/byte_size.h"
#include "plan/memory_model.h"
#include "plan/system_memory.h"

namespace puna::plan {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kGiB = 1 << 30;

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
  bytes.kv = 4096 + static_cast<uint64_t>(config.num_blocks) * kv::kBlockTokens * kTokenBytes;
  bytes.activations = static_cast<uint64_t>(config.max_batch_tokens) * 16384;
  bytes.sampling = kMiB;
  return bytes;
}
constexpr int32_t kContext = 8192;

PlanRequest request() {
  PlanRequest request;
  request.model = "small.gguf";
  request.threads = 2;
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
    EXPECT_EQ(plan->kv_pool, 32 * 512 * kTokenBytes / (small ? 4 : 1));
    EXPECT_THAT(plan->table(), HasSubstr(small ? "KV pool, int8 " : "KV pool, f32 "));
    EXPECT_EQ(backend_config(*plan, asked).kv_type, type);
    EXPECT_EQ(backend_config(*plan, asked).activations, kernels::ActivationMode::kFloat);
  }
}

TEST(MemoryModel, DefaultPoolIsSensibleOnALargeMachine) {
  const auto plan = plan_memory(small_model, kContext, request(), {64 * kGiB, 60 * kGiB});
  ASSERT_TRUE(plan.ok()) << plan.error().message();
  EXPECT_EQ(plan->max_model_len, kContext);
  EXPECT_EQ(plan->num_blocks, 32 * 512 / kv::kBlockTokens);
  EXPECT_EQ(plan->kv_pool, 32 * 512 * kTokenBytes);
  EXPECT_LE(plan->total(), plan->budget);
}

TEST(MemoryModel, DefaultPoolTakesAtMostAQuarterOfASmallMachine) {
  const auto plan = plan_memory(small_model, kContext, request(), {kGiB, 800 * kMiB});
  ASSERT_TRUE(plan.ok()) << plan.error().message();
  EXPECT_LE(plan->kv_pool, 200 * kMiB);
  EXPECT_GT(plan->kv_pool, 190 * kMiB);
  EXPECT_EQ(plan->max_model_len, plan->num_blocks * kv::kBlockTokens);  // what fits
}

TEST(MemoryModel, ABudgetIsUsedUpButNeverExceeded) {
  for (uint64_t mib : {300, 512, 1000, 4000}) {
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
  EXPECT_THAT(plan->table(), HasSubstr("512.0 MiB  16384 tokens in 1024 blocks"));
  EXPECT_EQ(plan->weights_mapped + plan->weights_packed + plan->kv_pool + plan->activations +
                plan->sampling + plan->host_buffers + plan->runtime,
            plan->total());
  EXPECT_THAT(plan->metrics(), HasSubstr("puna:memory_bytes{owner=\"kv_pool\"} 536870912\n"));
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
  EXPECT_GE(plan->weights_mapped + plan->weights_packed, checkpoint->weight_bytes() / 2);
  EXPECT_GE(plan->max_model_len, 1024);
}

}  // namespace
}  // namespace puna::plan
