// SPDX-License-Identifier: Apache-2.0
// The CUDA backend on the tiny models: logits against transformers in float32, and the same bits
// alone, in company, however a prompt is chunked, with graphs and without.
#include "engine/cuda_backend.h"

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <numeric>
#include <string>

#include "engine/cuda_fault.h"
#include "engine/cuda_llama.h"
#include "engine/cuda_step_layout.h"
#include "engine/sampler.h"
#include "formats/test_files.h"
#include "kernels/cuda/gemm.h"
#include "kv/block_id.h"

namespace puna::engine {
namespace {

using formats::Checkpoint;
using kernels::cuda::DecodeWay;

const std::string kGolden = PUNA_GOLDEN_DIR;

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path;
  return {std::istreambuf_iterator<char>(file), {}};
}

// The numbers of the list "tokens" in tests/golden/model/tiny.json.
std::vector<int32_t> tiny_tokens() {
  const std::string text = read_file(kGolden + "/model/tiny.json");
  const char* at = text.c_str() + text.find('[', text.find("\"tokens\"")) + 1;
  std::vector<int32_t> tokens;
  while (*at != ']') {
    char* end = nullptr;
    tokens.push_back(static_cast<int32_t>(std::strtol(at, &end, 10)));
    at = end + std::strspn(end, ", \n");
  }
  return tokens;
}

std::vector<double> log_softmax(const float* logits, size_t count) {
  const double largest = static_cast<double>(*std::max_element(logits, logits + count));
  double total = 0;
  for (size_t i = 0; i < count; ++i) total += std::exp(static_cast<double>(logits[i]) - largest);
  std::vector<double> result(count);
  for (size_t i = 0; i < count; ++i)
    result[i] = static_cast<double>(logits[i]) - largest - std::log(total);
  return result;
}

TEST(DecodeGrid, RowsGoWholeWhereThreadBlocksHaveEnoughOfThem) {
  const AttentionGrid grid = {.tile_rows = 64, .kv_heads = 8, .decode_blocks = 132};
  const auto whole = [&](size_t rows, int32_t chunks) {
    return decode_way(std::vector<int32_t>(rows, chunks), grid) == DecodeWay::kWholeRows;
  };
  EXPECT_TRUE(whole(32, 29));   // 256 rows and heads for 132 blocks, two each
  EXPECT_TRUE(whole(16, 29));   // 128
  EXPECT_TRUE(whole(256, 3));   // 2,048, fifteen or sixteen each
  EXPECT_FALSE(whole(1, 29));   // eight blocks would do all
  EXPECT_FALSE(whole(17, 29));  // four blocks would do twice what others do
  EXPECT_FALSE(whole(32, 3));   // warps of a block would have none
  EXPECT_FALSE(whole(256, 1));  // there is nothing to merge
  EXPECT_FALSE(whole(0, 0));
  EXPECT_TRUE(may_go(DecodeWay::kWholeRows, 16, grid));
  EXPECT_FALSE(may_go(DecodeWay::kWholeRows, 15, grid));
  std::vector<int32_t> mixed(256, 2);
  mixed[0] = 4;
  EXPECT_EQ(decode_way(mixed, grid), DecodeWay::kWholeRows);
  mixed[0] = 40;
  EXPECT_EQ(decode_way(mixed, grid), DecodeWay::kChunks) << "longer than what a block has in all";
}

TEST(DecodeGrid, FewChunksAreThoseThatGoBesideEachOther) {
  const AttentionGrid grid = {.tile_rows = 32, .kv_heads = 8, .decode_blocks = 132};
  const auto way = [&](size_t rows, int32_t chunks) {
    return decode_way(std::vector<int32_t>(rows, chunks), grid);
  };
  EXPECT_EQ(way(0, 0), DecodeWay::kFewChunks);
  EXPECT_EQ(way(1, 49), DecodeWay::kFewChunks);  // 392 of 396
  EXPECT_EQ(way(1, 50), DecodeWay::kChunks);
  EXPECT_EQ(way(16, 3), DecodeWay::kFewChunks);
  EXPECT_EQ(way(16, 4), DecodeWay::kChunks);
  EXPECT_EQ(way(64, 1), DecodeWay::kChunks);
  const AttentionGrid even = {.kv_heads = 4, .decode_blocks = 132};  // 396 are 99 chunks
  EXPECT_EQ(decode_way(std::vector<int32_t>{99}, even), DecodeWay::kFewChunks);
  EXPECT_TRUE(may_go(DecodeWay::kFewChunks, 99, even));
  EXPECT_EQ(way(49, 1), DecodeWay::kChunks) << "they run as 64 rows";
  EXPECT_EQ(way(32, 28), DecodeWay::kWholeRows);
  EXPECT_TRUE(may_go(DecodeWay::kFewChunks, 49, grid));
  EXPECT_FALSE(may_go(DecodeWay::kFewChunks, 50, grid));
  EXPECT_TRUE(may_go(DecodeWay::kChunks, 256, grid));
}

// Graphs are captured for the ways that their padded rows may go.
TEST(DecodeGrid, EveryStepThatDecodesHasAGraph) {
  for (const int32_t kv_heads : {1, 2, 3, 4, 8}) {
    const AttentionGrid grid = {.tile_rows = 32, .kv_heads = kv_heads, .decode_blocks = 132};
    for (int32_t rows = 1; rows <= 512; ++rows) {
      for (const int32_t chunks : {1, 2, 3, 8, 32}) {
        const auto way = decode_way(std::vector<int32_t>(static_cast<size_t>(rows), chunks), grid);
        EXPECT_TRUE(may_go(way, kernels::cuda::padded_rows(rows), grid))
            << rows << " rows of " << chunks << " chunks for " << kv_heads << " KV heads";
      }
    }
  }
}

TEST(CudaTuning, TheNextStartTakesWhatTheFirstChose) {
  const auto checkpoint = Checkpoint::open(kGolden + "/tiny_llama_hf").value();
  const formats::ScratchFolder folder;
  CudaBackendConfig config = {
      .num_blocks = 32, .max_num_seqs = 4, .max_batch_tokens = 256, .max_model_len = 256};
  config.tuning_folder = folder / "made";
  for (const bool again : {false, true}) {
    auto made = make_cuda_backend(checkpoint, config);
    ASSERT_TRUE(made.ok()) << made.error().message();
    EXPECT_EQ(made->facts.tuning_problem, "");
    size_t kept = 0;
    for (size_t at = 0; (at = made->facts.products.find("as it was kept", at)) != std::string::npos;
         ++at)
      ++kept;
    EXPECT_EQ(kept, again ? 5U : 0U) << made->facts.products;
  }
  formats::write_text(folder / "file", "");
  config.tuning_folder = folder / "file";
  auto made = make_cuda_backend(checkpoint, config);
  ASSERT_TRUE(made.ok()) << made.error().message();
  EXPECT_NE(made->facts.tuning_problem.find(config.tuning_folder), std::string::npos);
}

class GoldenTest : public testing::TestWithParam<std::pair<const char*, const char*>> {};

TEST_P(GoldenTest, LogitsAreThoseOfTransformersInFloat32) {
  const auto [model, golden] = GetParam();
  const auto checkpoint = Checkpoint::open(kGolden + "/" + model).value();
  const auto vocab = static_cast<size_t>(checkpoint.spec().vocab_size);
  const std::vector<int32_t> tokens = tiny_tokens();
  const std::string bytes = read_file(kGolden + "/model/" + golden);
  ASSERT_EQ(bytes.size(), tokens.size() * vocab * sizeof(float));
  std::vector<float> expected(tokens.size() * vocab);
  std::memcpy(expected.data(), bytes.data(), bytes.size());

  CudaBackendConfig config = {
      .num_blocks = 32, .max_num_seqs = 4, .max_batch_tokens = 256, .max_model_len = 256};
  auto made = make_cuda_backend(checkpoint, config);
  ASSERT_TRUE(made.ok()) << made.error().message();
  Backend& backend = *made->backend;
  SamplingParams sampling;
  sampling.temperature = 0.0F;
  sampling.top_logprobs = kMaxTopLogprobs;
  std::vector<kv::BlockId> table(16);
  std::iota(table.begin(), table.end(), 3);
  double divergence = 0;
  double worst = 0;
  for (size_t done = 0; done < tokens.size(); ++done) {
    Batch batch;
    BatchItem item;
    item.first_position = static_cast<int32_t>(done);
    item.num_tokens = 1;
    item.tokens = std::span(tokens).subspan(done, 1);
    item.block_table = table;
    item.sample = true;
    item.history = std::span(tokens).first(done + 1);
    item.sampling = &sampling;
    item.prompt_tokens = static_cast<int32_t>(tokens.size());
    batch.items.push_back(item);
    batch.num_tokens = 1;
    batch.num_samples = 1;
    backend.start(batch);
    const SampledToken& got = backend.collect()[0];
    const auto truth = log_softmax(expected.data() + done * vocab, vocab);
    for (int32_t i = 0; i < got.num_top; ++i) {
      const TokenLogprob& top = got.top[static_cast<size_t>(i)];
      const double right = truth[static_cast<size_t>(top.token)];
      divergence += std::exp(right) * (right - static_cast<double>(top.logprob));
      worst = std::max(worst, std::abs(right - static_cast<double>(top.logprob)));
    }
  }
  divergence /= static_cast<double>(tokens.size());
  RecordProperty("worst", std::to_string(worst));
  std::printf("%s: worst logprob error %.5f, divergence over the top %d %.3g\n", model, worst,
              kMaxTopLogprobs, divergence);
  // Rounding to f16 between kernels, in models whose random logits are far apart.
  EXPECT_LT(worst, 0.05);
  EXPECT_LT(std::abs(divergence), 1e-4);
}

INSTANTIATE_TEST_SUITE_P(Tiny, GoldenTest,
                         testing::Values(std::pair{"tiny_llama_hf", "tiny_llama_hf.f32"},
                                         std::pair{"tiny_llama_hf_tied",
                                                   "tiny_llama_hf_tied.f32"}));

// A sequence as the engine would hold it.
struct Sequence {
  int32_t slot = 0;
  SamplingParams sampling;
  size_t prompt_tokens = 0;
  std::vector<TokenId> history;
  std::vector<kv::BlockId> block_table;
  int32_t done = 0;
  std::vector<float> logprobs;
};

constexpr int32_t kMaxLength = 512;

Sequence make_sequence(int32_t slot, size_t prompt, float temperature, kv::BlockId first_block) {
  Sequence sequence;
  sequence.slot = slot;
  sequence.sampling.temperature = temperature;
  sequence.sampling.seed = prompt + 11;
  if (temperature > 0) sequence.sampling.top_logprobs = 3;
  sequence.prompt_tokens = prompt;
  for (size_t i = 0; i < prompt; ++i)
    sequence.history.push_back(static_cast<TokenId>((i * 37 + prompt * 11) % 500));
  sequence.block_table.resize(kMaxLength / kv::kBlockTokens);
  std::iota(sequence.block_table.begin(), sequence.block_table.end(), first_block);
  sequence.history.reserve(kMaxLength);
  return sequence;
}

void step(Backend& backend, const std::vector<Sequence*>& sequences, int32_t chunk,
          bool device_token) {
  Batch batch;
  for (Sequence* sequence : sequences) {
    BatchItem item;
    const auto known = static_cast<int32_t>(sequence->history.size());
    item.slot = sequence->slot;
    item.first_position = sequence->done;
    item.num_tokens = std::min(chunk, known - sequence->done);
    item.tokens =
        std::span<const TokenId>(sequence->history)
            .subspan(static_cast<size_t>(sequence->done), static_cast<size_t>(item.num_tokens));
    item.block_table = sequence->block_table;
    item.sample = sequence->done + item.num_tokens == known;
    item.history = sequence->history;
    item.sampling = &sequence->sampling;
    item.prompt_tokens = static_cast<int32_t>(sequence->prompt_tokens);
    if (device_token && item.num_tokens == 1 && sequence->history.size() > sequence->prompt_tokens)
      item.tokens = {};
    batch.items.push_back(item);
    batch.num_tokens += item.num_tokens;
    batch.num_samples += item.sample ? 1 : 0;
  }
  backend.start(batch);
  const auto sampled = backend.collect();
  ASSERT_EQ(sampled.size(), static_cast<size_t>(batch.num_samples));
  size_t next = 0;
  for (size_t i = 0; i < sequences.size(); ++i) {
    sequences[i]->done += batch.items[i].num_tokens;
    if (!batch.items[i].sample) continue;
    sequences[i]->history.push_back(sampled[next].token);
    sequences[i]->logprobs.push_back(sampled[next].logprob);
    for (int32_t k = 0; k < sampled[next].num_top; ++k)
      sequences[i]->logprobs.push_back(sampled[next].top[static_cast<size_t>(k)].logprob);
    ++next;
  }
}

class SameBitsTest : public testing::Test {
 protected:
  static constexpr int32_t kOutput = 24;
  static constexpr int32_t kBlocksEach = kMaxLength / kv::kBlockTokens;

  SameBitsTest() : checkpoint_(Checkpoint::open(kGolden + "/tiny_llama_hf").value()) {}

  std::unique_ptr<Backend> make(bool graphs, int32_t num_host_blocks = 0) {
    auto made = make_cuda_backend(checkpoint_, {.num_blocks = 20 * kBlocksEach,
                                                .num_host_blocks = num_host_blocks,
                                                .max_num_seqs = 20,
                                                .max_batch_tokens = 2048,
                                                .max_model_len = kMaxLength,
                                                .graphs = graphs});
    EXPECT_TRUE(made.ok()) << made.error().message();
    return std::move(made->backend);
  }

  // The sequence, with `company` others beside it.
  Sequence run(Backend& backend, float temperature, int32_t slot, int32_t company, int32_t chunk,
               bool device_token) {
    Sequence sequence = make_sequence(slot, 333, temperature, slot * kBlocksEach);
    std::vector<Sequence> others;
    for (int32_t i = 0; i < company; ++i) {
      const int32_t other = i < slot ? i : i + 1;
      others.push_back(make_sequence(other, 20 + static_cast<size_t>(i) * 7,
                                     i % 3 == 0 ? 0.9F : 0.0F, other * kBlocksEach));
    }
    while (sequence.history.size() < sequence.prompt_tokens + kOutput) {
      std::vector<Sequence*> all;
      for (size_t i = 0; i < others.size() / 2; ++i) all.push_back(&others[i]);
      all.push_back(&sequence);
      for (size_t i = others.size() / 2; i < others.size(); ++i) all.push_back(&others[i]);
      step(backend, all, chunk, device_token);
    }
    return sequence;
  }

  const Checkpoint checkpoint_;
};

TEST_F(SameBitsTest, AloneInCompanyChunkedWithAndWithoutGraphs) {
  const auto with_graphs = make(true);
  const auto without = make(false);
  for (const float temperature : {0.0F, 0.8F}) {
    const Sequence alone = run(*without, temperature, 0, 0, 512, false);
    const auto expect_same = [&](const Sequence& other, const char* how) {
      EXPECT_EQ(alone.history, other.history) << how;
      ASSERT_EQ(alone.logprobs.size(), other.logprobs.size()) << how;
      EXPECT_EQ(std::memcmp(alone.logprobs.data(), other.logprobs.data(),
                            alone.logprobs.size() * sizeof(float)),
                0)
          << how;
    };
    expect_same(run(*with_graphs, temperature, 0, 0, 512, true), "with graphs");
    expect_same(run(*with_graphs, temperature, 5, 0, 64, true), "in chunks of 64, another slot");
    expect_same(run(*without, temperature, 3, 0, 1, false), "one token at a time");
    expect_same(run(*with_graphs, temperature, 2, 19, 40, true), "among 19 others, chunks of 40");
    expect_same(run(*with_graphs, temperature, 19, 9, 7, false), "among 9 others, chunks of 7");
  }
}

double seconds_of(const std::function<void()>& work) {
  const auto began = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
}

// A sequence's blocks go to the host, another one takes them at once, and they come back elsewhere.
// With a copy that begins late the order is seen to be kept: the step that takes the blocks waits
// for it, a step of others does not.
TEST_F(SameBitsTest, AfterATripToTheHostWhileAnotherOneTakesTheBlocks) {
  for (const char* fault : {"", "copy-stall:3"}) {  // the first copy after those at start
    setenv(kCudaFaultVariable, fault, 1);
    const auto backend = make(true, kBlocksEach);
    unsetenv(kCudaFaultVariable);
    const Sequence alone = run(*backend, 0.8F, 0, 0, 512, true);
    Sequence taker_alone = make_sequence(1, 400, 0.0F, 5 * kBlocksEach);
    step(*backend, {&taker_alone}, 512, false);

    Sequence sequence = make_sequence(0, 333, 0.8F, 0);
    while (sequence.history.size() < sequence.prompt_tokens + kOutput / 2)
      step(*backend, {&sequence}, 512, true);
    const int32_t blocks = kv::blocks_for_tokens(sequence.done);
    std::vector<KvCopy> copies;
    for (int32_t i = 0; i < blocks; ++i) copies.push_back({i, blocks - 1 - i});
    backend->save(copies);

    Sequence apart = make_sequence(2, 50, 0.0F, 6 * kBlocksEach);
    EXPECT_LT(seconds_of([&] { step(*backend, {&apart}, 512, false); }), 1.0);
    Sequence taker = make_sequence(1, 400, 0.0F, 0);
    const double took_s = seconds_of([&] { step(*backend, {&taker}, 512, false); });
    EXPECT_EQ(took_s > 4.0, *fault != '\0') << took_s;
    EXPECT_EQ(taker.history, taker_alone.history);

    std::iota(sequence.block_table.begin(), sequence.block_table.end(), 7 * kBlocksEach);
    for (int32_t i = 0; i < blocks; ++i)
      copies[static_cast<size_t>(i)].block = sequence.block_table[static_cast<size_t>(i)];
    const uint64_t last = backend->restore(copies);
    EXPECT_EQ(last, 2U + 2 * copies.size());
    while (backend->copied() < last) backend->wait_for_copy(last);
    while (sequence.history.size() < sequence.prompt_tokens + kOutput)
      step(*backend, {&sequence}, 512, true);
    EXPECT_EQ(sequence.history, alone.history);
    EXPECT_EQ(sequence.logprobs, alone.logprobs);
  }
}

TEST(CudaBackendTest, SaysHowMuchMemoryIsMissing) {
  const auto checkpoint = Checkpoint::open(kGolden + "/tiny_llama_hf").value();
  const auto made = make_cuda_backend(checkpoint, {.num_blocks = 2000000000 / 2});
  ASSERT_FALSE(made.ok());
  EXPECT_EQ(made.error().code(), ErrorCode::kResourceExhausted);
  EXPECT_NE(made.error().message().find("bytes wanted"), std::string::npos);
}

TEST(CudaBackendTest, NamesTheGpuThatIsNotThere) {
  const auto checkpoint = Checkpoint::open(kGolden + "/tiny_llama_hf").value();
  const auto made = make_cuda_backend(checkpoint, {.device = 99, .num_blocks = 8});
  ASSERT_FALSE(made.ok());
  EXPECT_EQ(made.error().code(), ErrorCode::kUnavailable);
}

TEST(CudaBackendTest, FactsAgreeWithTheDevicesMemory) {
  const auto checkpoint = Checkpoint::open(kGolden + "/tiny_llama_hf").value();
  const auto made =
      make_cuda_backend(checkpoint, {.num_blocks = 1 << 20, .max_num_seqs = 4, .graphs = false});
  ASSERT_TRUE(made.ok()) << made.error().message();
  const CudaBackendFacts& facts = made->facts;
  const double planned =
      static_cast<double>(facts.weights + facts.kv + facts.activations + facts.attention);
  const auto taken = static_cast<double>(facts.free_before - facts.free_after);
  EXPECT_GT(planned, 4e9);
  EXPECT_NEAR(taken / planned, 1.0, 0.05);
}

}  // namespace
}  // namespace puna::engine
