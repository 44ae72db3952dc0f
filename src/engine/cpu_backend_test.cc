// SPDX-License-Identifier: Apache-2.0
// The CPU backend on the tiny models: tokens and logprobs have the same bits alone and in company,
// on any number of threads, however a prompt is chunked, and a step allocates nothing.
#include "engine/cpu_backend.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <map>
#include <new>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "base/sanitizers.h"
#include "engine/sampler.h"
#include "engine/step_turn.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/thread_pool.h"
#include "kv/block_id.h"

#define PUNA_COUNTS_ALLOCATIONS (PUNA_SANITIZED == 0)

namespace {
std::atomic<uint64_t> allocations{0};
std::atomic<uint64_t> allocated_bytes{0};
}  // namespace

#if PUNA_COUNTS_ALLOCATIONS
// Counts what this program takes from the heap, on any thread; malloc does the work.
[[gnu::noinline]] void* operator new(size_t bytes) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  allocated_bytes.fetch_add(bytes, std::memory_order_relaxed);
  void* memory = std::malloc(bytes == 0 ? 1 : bytes);
  if (memory == nullptr) std::abort();
  return memory;
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { std::free(memory); }
#endif

namespace puna::engine {
namespace {

using formats::Checkpoint;

Checkpoint tiny() {
  return Checkpoint::open(std::string(PUNA_GOLDEN_DIR) + "/tiny_llama_hf").value();
}

const CpuBackendConfig kConfig = {.num_blocks = 64,
                                  .max_num_seqs = 8,
                                  .max_batch_tokens = 128,
                                  .max_model_len = 256,
                                  .threads = 2};

// A sequence as the engine would hold it.
struct Sequence {
  int32_t slot = 0;
  SamplingParams sampling;
  size_t prompt_tokens = 0;
  std::vector<TokenId> history;          // prompt and output
  std::vector<kv::BlockId> block_table;  // enough for the whole run
  int32_t done = 0;                      // positions in the cache
  std::vector<float> logprobs;           // of the output, and of each token's alternatives
};

Sequence make_sequence(int32_t slot, size_t prompt_tokens, float temperature,
                       kv::BlockId first_block) {
  Sequence sequence;
  sequence.slot = slot;
  sequence.sampling.temperature = temperature;
  sequence.sampling.seed = static_cast<uint64_t>(slot) + 11;
  sequence.sampling.top_logprobs = 3;
  sequence.prompt_tokens = prompt_tokens;
  for (size_t i = 0; i < prompt_tokens; ++i) {
    sequence.history.push_back(static_cast<TokenId>((i * 37 + prompt_tokens * 11) % 500));
  }
  sequence.block_table.resize(8);
  std::iota(sequence.block_table.begin(), sequence.block_table.end(), first_block);
  sequence.history.reserve(256);
  return sequence;
}

BatchItem item_of(Sequence& sequence, int32_t chunk, bool device_token) {
  const int32_t count =
      std::min(chunk, static_cast<int32_t>(sequence.history.size()) - sequence.done);
  BatchItem item;
  item.slot = sequence.slot;
  item.first_position = sequence.done;
  item.num_tokens = count;
  item.tokens = std::span(sequence.history)
                    .subspan(static_cast<size_t>(sequence.done), static_cast<size_t>(count));
  item.block_table = sequence.block_table;
  item.sample = sequence.done + count == static_cast<int32_t>(sequence.history.size());
  item.sampling = &sequence.sampling;
  item.history = sequence.history;
  item.prompt_tokens = static_cast<int32_t>(sequence.prompt_tokens);
  if (device_token && count == 1 && sequence.history.size() > sequence.prompt_tokens)
    item.tokens = {};
  return item;
}

// One step with every sequence in it, each with at most `chunk` tokens.
void step(Backend& backend, std::vector<Sequence*> sequences, int32_t chunk,
          bool device_token = false) {
  Batch batch;
  for (Sequence* sequence : sequences)
    batch.items.push_back(item_of(*sequence, chunk, device_token));
  backend.start(batch);
  const std::span<const SampledToken> sampled = backend.collect();
  size_t next = 0;
  for (size_t i = 0; i < sequences.size(); ++i) {
    sequences[i]->done += batch.items[i].num_tokens;
    if (!batch.items[i].sample) continue;
    const SampledToken& token = sampled[next++];
    sequences[i]->history.push_back(token.token);
    sequences[i]->logprobs.push_back(token.logprob);
    for (int32_t k = 0; k < token.num_top; ++k) {
      sequences[i]->logprobs.push_back(token.top[static_cast<size_t>(k)].logprob);
    }
  }
  ASSERT_EQ(next, sampled.size());
}

void expect_same(const Sequence& a, const Sequence& b, const std::string& what) {
  const size_t tokens = std::min(a.history.size(), b.history.size());
  ASSERT_GT(tokens, a.prompt_tokens) << what;
  EXPECT_TRUE(std::equal(a.history.begin(), a.history.begin() + static_cast<ptrdiff_t>(tokens),
                         b.history.begin()))
      << what;
  const size_t logprobs = std::min(a.logprobs.size(), b.logprobs.size());
  EXPECT_EQ(std::memcmp(a.logprobs.data(), b.logprobs.data(), logprobs * sizeof(float)), 0) << what;
}

std::unique_ptr<Backend> make(const Checkpoint& checkpoint, CpuBackendConfig config = kConfig) {
  return make_cpu_backend(checkpoint, config).value();
}

Sequence solo(const Checkpoint& checkpoint, const Sequence& wanted, CpuBackendConfig config) {
  const auto backend = make(checkpoint, config);
  Sequence sequence =
      make_sequence(wanted.slot, wanted.prompt_tokens, wanted.sampling.temperature, 0);
  for (int i = 0; i < 24; ++i) step(*backend, {&sequence}, 128);
  return sequence;
}

class CpuBackendKv : public testing::TestWithParam<kernels::KvType> {};

TEST_P(CpuBackendKv, SequenceEqualsItsSoloRun) {
  const Checkpoint checkpoint = tiny();
  CpuBackendConfig config = kConfig;
  config.kv_type = GetParam();
  const auto backend = make(checkpoint, config);
  Sequence a = make_sequence(0, 70, 0.0F, 0);
  Sequence b = make_sequence(1, 3, 0.9F, 8);
  Sequence c = make_sequence(5, 41, 1.3F, 16);
  step(*backend, {&a}, 64);
  step(*backend, {&b, &a}, 17);
  for (int i = 0; i < 12; ++i) step(*backend, {&c, &a, &b}, 7, /*device_token=*/true);
  std::swap(b.slot, c.slot);  // a new owner of the slot: its first step brings its token
  step(*backend, {&b, &a}, 7);
  std::swap(b.slot, c.slot);

  CpuBackendConfig other = config;
  for (const int32_t threads : {1, 3}) {
    other.threads = threads;
    const std::string what = std::to_string(threads) + " threads";
    expect_same(a, solo(checkpoint, a, other), what);
    expect_same(b, solo(checkpoint, b, other), what);
    expect_same(c, solo(checkpoint, c, other), what);
  }
}

INSTANTIATE_TEST_SUITE_P(, CpuBackendKv,
                         testing::Values(kernels::KvType::kF32, kernels::KvType::kBF16,
                                         kernels::KvType::kInt8));

TEST(CpuBackend, ReusedBlocksLeaveNoTrace) {
  const Checkpoint checkpoint = tiny();
  const auto backend = make(checkpoint);
  Sequence before = make_sequence(0, 100, 1.0F, 0);
  for (int i = 0; i < 20; ++i) step(*backend, {&before}, 128);
  Sequence after = make_sequence(1, 20, 0.7F, 0);
  for (int i = 0; i < 20; ++i) step(*backend, {&after}, 128);
  expect_same(after, solo(checkpoint, after, kConfig), "after another owner of the blocks");
}

// Two models on one pool of threads, each driven by a thread of its own, as several engines do.
TEST(CpuBackend, BackendsThatShareThreadsTakeTurnsAndKeepTheirBits) {
  const Checkpoint checkpoint = tiny();
  const auto pool = kernels::ThreadPool::create(2).value();
  StepTurn turn;
  const std::array<kernels::KvType, 2> kv_types = {kernels::KvType::kBF16, kernels::KvType::kInt8};
  std::vector<Sequence> alone;
  std::vector<std::unique_ptr<TurnBackend>> backends;
  for (const kernels::KvType kv_type : kv_types) {
    CpuBackendConfig config = kConfig;
    config.kv_type = kv_type;
    alone.push_back(solo(checkpoint, make_sequence(0, 40, 0.8F, 0), config));
    config.pool = pool.get();
    backends.push_back(
        std::make_unique<TurnBackend>(make_cpu_backend(checkpoint, config).value(), turn));
    EXPECT_EQ(backends.back()->name(), "cpu");
  }
  std::vector<std::thread> engines;
  for (size_t i = 0; i < backends.size(); ++i) {
    engines.emplace_back([&, i] {
      for (int round = 0; round < 3; ++round) {
        Sequence sequence = make_sequence(0, 40, 0.8F, 0);
        while (sequence.history.size() < alone[i].history.size()) {
          step(*backends[i], {&sequence}, 16);
        }
        expect_same(sequence, alone[i], fmt::format("engine {} round {}", i, round));
      }
    });
  }
  for (std::thread& thread : engines) thread.join();
}

TEST(CpuBackend, StepAllocatesNothing) {
  if (PUNA_COUNTS_ALLOCATIONS == 0) GTEST_SKIP() << "the sanitizer owns operator new";
  const Checkpoint checkpoint = tiny();
  for (const std::string_view isa : kernels::available_isas()) {
    if (isa == "scalar") continue;  // it keeps its formulas plain, with vectors
    CpuBackendConfig config = kConfig;
    config.isa = isa;
    const auto backend = make(checkpoint, config);
    Sequence prompt = make_sequence(0, 90, 1.0F, 0);
    Sequence short_prompt = make_sequence(1, 5, 0.0F, 8);
    Batch batch;
    batch.items = {item_of(prompt, 128, false), item_of(short_prompt, 128, false)};
    const uint64_t before = allocations.load();
    backend->start(batch);
    EXPECT_EQ(backend->collect().size(), 2U);
    EXPECT_EQ(allocations.load(), before) << isa;
  }
}

TEST(CpuBackend, StepWithoutSamplesOrItems) {
  const Checkpoint checkpoint = tiny();
  const auto backend = make(checkpoint);
  backend->start(Batch{});
  EXPECT_TRUE(backend->collect().empty());
  Sequence sequence = make_sequence(0, 90, 0.0F, 0);
  step(*backend, {&sequence}, 50);  // the prompt's first piece
  EXPECT_TRUE(backend->collect().empty());
  EXPECT_EQ(backend->name(), "cpu");
  EXPECT_EQ(backend->limits().vocab_size, 512);
}

TEST(CpuBackend, CountsItsBytes) {
  const Checkpoint checkpoint = tiny();
  const CpuBackendBytes bytes = cpu_backend_bytes(checkpoint, kConfig);
  // Blocks, layers, K and V, heads, tokens, dim, bf16; and some scratch.
  EXPECT_GE(bytes.kv, 64U * 2 * 2 * 2 * 16 * 16 * 2);
  EXPECT_LE(bytes.kv, 64U * 2 * 2 * 2 * 16 * 16 * 2 * 5 / 4);
  // What isn't packed is mapped; the norms are copied.
  EXPECT_GE(bytes.mapped + bytes.weights, checkpoint.weight_bytes());
  EXPECT_GE(bytes.weights, 5U * 64 * 4);
  EXPECT_GE(bytes.activations, (128U * (64 + 64 + 16 + 64 + 64 + 128) + 8 * (64 + 512)) * 4);

  if (PUNA_COUNTS_ALLOCATIONS == 0) return;  // the sanitizer owns operator new
  const uint64_t before = allocated_bytes.load();
  const Sampler sampler(512);
  const uint64_t one_sampler = allocated_bytes.load() - before;
  const uint64_t counted = (bytes.sampling - 8 * sizeof(SampledToken)) / 2;
  EXPECT_GE(counted, one_sampler);
  EXPECT_LE(counted, one_sampler + one_sampler / 5);
}

TEST(CpuBackend, RefusalsNameTheReason) {
  const Checkpoint checkpoint = tiny();
  CpuBackendConfig config = kConfig;
  config.isa = "sse9";
  const auto unknown = make_cpu_backend(checkpoint, config);
  ASSERT_FALSE(unknown.ok());
  EXPECT_EQ(unknown.error().code(), ErrorCode::kInvalidArgument);
  EXPECT_NE(unknown.error().message().find("sse9"), std::string::npos);

  config = kConfig;
  config.num_blocks = INT32_MAX;
  const auto large = make_cpu_backend(checkpoint, config);
  ASSERT_FALSE(large.ok());
  EXPECT_EQ(large.error().code(), ErrorCode::kResourceExhausted);
  const std::string wanted = std::to_string(cpu_backend_bytes(checkpoint, config).kv);
  EXPECT_NE(large.error().message().find(wanted), std::string::npos) << large.error().message();

  config = kConfig;
  config.threads = 1 << 20;
  const auto crowd = make_cpu_backend(checkpoint, config);
  ASSERT_FALSE(crowd.ok());
  EXPECT_EQ(crowd.error().code(), ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace puna::engine
