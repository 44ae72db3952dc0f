// SPDX-License-Identifier: Apache-2.0
// A GPU that fails in a step ends the process with one line and an exit code, soon. What a server
// does then: tools/gpu/faults.sh.
#include "engine/cuda_fault.h"

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <string>
#include <vector>

#include "engine/cuda_backend.h"

namespace puna::engine {
namespace {

using formats::Checkpoint;

constexpr int32_t kStallLimitMs = 500;
constexpr uint64_t kCopies = 2 + 40;  // those at start, and one before each step

// Steps until the fault strikes; in a process of its own, for it takes the context along.
void run_steps(const char* fault, bool graphs) {
  setenv(kCudaFaultVariable, fault, 1);
  const auto checkpoint = Checkpoint::open(std::string(PUNA_GOLDEN_DIR) + "/tiny_llama_hf").value();
  auto made = make_cuda_backend(checkpoint, {.num_blocks = 8,
                                             .num_host_blocks = 8,
                                             .max_num_seqs = 2,
                                             .max_batch_tokens = 64,
                                             .max_model_len = 64,
                                             .graphs = graphs,
                                             .step_limit_ms = kStallLimitMs});
  ASSERT_TRUE(made.ok()) << made.error().message();
  SamplingParams sampling;
  sampling.temperature = 0.0F;
  const std::vector<TokenId> tokens(40, 7);
  const std::vector<kv::BlockId> table = {0, 1, 2, 3};
  const KvCopy elsewhere = {.block = 7, .host_block = 5};
  for (int32_t position = 0; position < 40; ++position) {
    made->backend->save({&elsewhere, 1});
    made->backend->copied();
    Batch batch;
    BatchItem item;
    item.first_position = position;
    item.num_tokens = 1;
    item.tokens = std::span(tokens).subspan(static_cast<size_t>(position), 1);
    item.block_table = table;
    item.sample = true;
    item.history = std::span(tokens).first(static_cast<size_t>(position) + 1);
    item.sampling = &sampling;
    batch.items.push_back(item);
    batch.num_tokens = batch.num_samples = 1;
    made->backend->start(batch);
    made->backend->collect();
  }
  // A copy that nobody waits for is looked at all the same.
  const auto end = std::chrono::steady_clock::now() + 2 * std::chrono::milliseconds(kStallLimitMs);
  while (made->backend->copied() < kCopies && std::chrono::steady_clock::now() < end) {
    made->backend->wait_for_copy(kCopies);
  }
  std::fprintf(stderr, "all steps done\n");
  std::_Exit(0);
}

class CudaFaultTest : public testing::TestWithParam<bool> {
 protected:
  CudaFaultTest() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

TEST_P(CudaFaultTest, WithoutOneAllStepsAreDone) {
  EXPECT_EXIT(run_steps("", GetParam()), testing::ExitedWithCode(0), "all steps done");
}

TEST_P(CudaFaultTest, ARefusedLaunchEndsTheProcess) {
  EXPECT_EXIT(run_steps("launch:20", GetParam()),
              testing::ExitedWithCode(kernels::cuda::kDeviceLostExit),
              "fatal: the GPU failed in a kernel's launch: invalid");
}

TEST_P(CudaFaultTest, ALostContextEndsTheProcess) {
  EXPECT_EXIT(run_steps("lost:20", GetParam()),
              testing::ExitedWithCode(kernels::cuda::kDeviceLostExit), "fatal: the GPU failed in ");
}

TEST_P(CudaFaultTest, AStepWithoutAnEndIsGivenUp) {
  const auto began = std::chrono::steady_clock::now();
  EXPECT_EXIT(run_steps("stall:20", GetParam()),
              testing::ExitedWithCode(kernels::cuda::kDeviceLostExit),
              "fatal: the GPU failed in a step: no result within");
  // A process that is gone while a kernel runs is waited for by the driver, or not.
  EXPECT_LT(std::chrono::steady_clock::now() - began, kFaultStall + std::chrono::seconds(10));
}

TEST_P(CudaFaultTest, ARefusedCopyEndsTheProcess) {
  EXPECT_EXIT(run_steps("copy:20", GetParam()),
              testing::ExitedWithCode(kernels::cuda::kDeviceLostExit),
              "fatal: the GPU failed in copying KV blocks: invalid");
}

TEST_P(CudaFaultTest, ACopyWithoutAnEndIsGivenUp) {
  EXPECT_EXIT(run_steps("copy-stall:20", GetParam()),
              testing::ExitedWithCode(kernels::cuda::kDeviceLostExit),
              "fatal: the GPU failed in copying KV blocks: no copy within");
}

INSTANTIATE_TEST_SUITE_P(Steps, CudaFaultTest, testing::Bool(),
                         [](const auto& of) { return of.param ? "Graphs" : "NoGraphs"; });

TEST(CudaFault, NamesWhatItDoesNotKnow) {
  for (const char* text :
       {"launch", "launch:", "launch:0", "launch:-1", "lost:2x", "fire:3", ":4"}) {
    const auto fault = CudaFault::parse(text);
    ASSERT_FALSE(fault.ok()) << text;
    EXPECT_NE(fault.error().message().find(text), std::string::npos);
  }
  EXPECT_TRUE(CudaFault::parse("").ok());
  EXPECT_TRUE(CudaFault::parse("stall:12").ok());
  EXPECT_TRUE(CudaFault::parse("copy:1").ok());
  EXPECT_TRUE(CudaFault::parse("copy-stall:3").ok());
}

// All but a little of the GPU's memory is taken when the backend wants some: an error with bytes,
// not the end of the process.
TEST(CudaMemoryTest, AFullGpuIsAnErrorAtStart) {
  const auto checkpoint = Checkpoint::open(std::string(PUNA_GOLDEN_DIR) + "/tiny_llama_hf").value();
  const auto memory = cuda_memory(0);
  ASSERT_TRUE(memory.ok()) << memory.error().message();
  constexpr uint64_t kLeft = uint64_t{256} << 20;
  ASSERT_GT(memory->free, kLeft);
  void* taken = nullptr;
  ASSERT_EQ(cudaMalloc(&taken, memory->free - kLeft), cudaSuccess);
  const auto chosen = make_cuda_backend(checkpoint, {});
  const auto fixed = make_cuda_backend(checkpoint, {.num_blocks = 1 << 20, .max_num_seqs = 4});
  cudaFree(taken);
  ASSERT_FALSE(chosen.ok());
  EXPECT_EQ(chosen.error().code(), ErrorCode::kResourceExhausted);
  EXPECT_NE(chosen.error().message().find("bytes free"), std::string::npos);
  ASSERT_FALSE(fixed.ok());
  EXPECT_EQ(fixed.error().code(), ErrorCode::kResourceExhausted);
  EXPECT_NE(fixed.error().message().find("bytes wanted"), std::string::npos);
  const auto again = make_cuda_backend(checkpoint, {.num_blocks = 64, .max_num_seqs = 4});
  EXPECT_TRUE(again.ok()) << again.error().message();
}

}  // namespace
}  // namespace puna::engine
