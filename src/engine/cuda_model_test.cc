// SPDX-License-Identifier: Apache-2.0
// Whole distributions of the CUDA model against the CPU's float reference: a model file (the real
// SmolLM2, when PUNA_TEST_MODEL names it) and the first layers of Llama 3 8B with random weights.
#include <cuda_runtime.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "engine/cuda_llama.h"
#include "engine/cuda_step_layout.h"
#include "formats/gguf_writer.h"
#include "formats/known_specs.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/thread_pool.h"
#include "kv/block_id.h"
#include "model/llama.h"

namespace puna::engine {
namespace {

namespace cuda = kernels::cuda;
using formats::Checkpoint;

std::vector<int32_t> random_tokens(size_t count, int32_t vocab_size) {
  std::mt19937 random(5);
  std::vector<int32_t> tokens(count);
  for (int32_t& token : tokens)
    token = static_cast<int32_t>(random() % static_cast<uint32_t>(vocab_size));
  return tokens;
}

// Logits of every position, [tokens, vocab_size].
std::vector<float> cpu_logits(const Checkpoint& checkpoint, const std::vector<int32_t>& tokens) {
  const auto ops =
      kernels::make_cpu_ops("", {.activations = kernels::ActivationMode::kFloat}).value();
  const auto threads = static_cast<int32_t>(std::thread::hardware_concurrency());
  const auto pool = kernels::ThreadPool::create(threads).value();
  const auto rows = static_cast<int32_t>(tokens.size());
  const int32_t blocks = kv::blocks_for_tokens(rows);
  const auto llama = model::Llama::create(checkpoint, *ops,
                                          {.max_rows = rows,
                                           .max_logit_rows = rows,
                                           .num_blocks = blocks,
                                           .kv_type = kernels::KvType::kF32})
                         .value();
  std::vector<int32_t> table(static_cast<size_t>(blocks));
  std::iota(table.begin(), table.end(), 0);
  std::vector<int32_t> wanted(tokens.size());
  std::iota(wanted.begin(), wanted.end(), 0);
  const kernels::SequenceRows sequence{0, rows, 0, table.data()};
  const model::LlamaStep step{tokens, {&sequence, 1}, wanted};
  pool->run([&](kernels::Lane& lane) { llama.forward(lane, step); });
  std::vector<float> logits;
  const auto vocab = static_cast<size_t>(checkpoint.spec().vocab_size);
  for (int32_t row = 0; row < rows; ++row) {
    const float* from = llama.logits().row(row);
    logits.insert(logits.end(), from, from + vocab);
  }
  return logits;
}

// The same on the GPU, whose steps have the logits of one position a sequence: so one token a step.
std::vector<float> gpu_logits(const Checkpoint& checkpoint, const std::vector<int32_t>& tokens) {
  const auto rows = static_cast<int32_t>(tokens.size());
  const int32_t blocks = kv::blocks_for_tokens(rows);
  const BackendLimits limits = {.num_blocks = blocks,
                                .max_num_seqs = 1,
                                .max_batch_tokens = 64,
                                .max_model_len = rows,
                                .vocab_size = checkpoint.spec().vocab_size};
  const auto device = cuda::open_device(0).value();
  cudaStream_t stream = nullptr;
  EXPECT_EQ(cudaStreamCreate(&stream), cudaSuccess);
  auto llama =
      CudaLlama::create(
          checkpoint.spec(), &checkpoint,
          {.max_rows = 64, .max_logit_rows = 1, .max_positions = rows, .num_blocks = blocks},
          device, stream)
          .value();
  const auto words = static_cast<size_t>(CudaStepLayout::words_for(limits));
  std::vector<int32_t> host(words);
  int32_t* on_device = nullptr;
  EXPECT_EQ(cudaMalloc(&on_device, words * sizeof(int32_t)), cudaSuccess);
  CudaStepLayout layout(limits, {}, host.data());
  std::vector<kv::BlockId> table(static_cast<size_t>(blocks));
  std::iota(table.begin(), table.end(), 0);
  SamplingParams greedy;
  greedy.temperature = 0.0F;
  const std::vector<TokenId> none = {-1};
  const auto vocab = static_cast<size_t>(limits.vocab_size);
  std::vector<float> logits(tokens.size() * vocab);
  for (size_t i = 0; i < tokens.size(); ++i) {
    Batch batch;
    BatchItem item;
    item.first_position = static_cast<int32_t>(i);
    item.num_tokens = 1;
    item.tokens = std::span(tokens).subspan(i, 1);
    item.block_table = table;
    item.sample = true;
    item.history = std::span(tokens).first(i + 1);
    item.sampling = &greedy;
    batch.items.push_back(item);
    layout.lay_out(batch, none);
    EXPECT_EQ(cudaMemcpy(on_device, host.data(), words * sizeof(int32_t), cudaMemcpyHostToDevice),
              cudaSuccess);
    llama->forward({.rows = layout.rows(),
                    .tokens = on_device + layout.tokens(),
                    .slots = on_device + layout.slots(),
                    .last_tokens = nullptr,
                    .positions = on_device + layout.positions(),
                    .cells = on_device + layout.cells(),
                    .block_tables = on_device,
                    .decode_items = reinterpret_cast<const cuda::DecodeItem*>(
                        on_device + layout.decode_items()),
                    .num_decode_items = on_device,
                    .decode_way = layout.decode_way(),
                    .num_decode_rows = layout.rows(),
                    .tiles = nullptr,
                    .num_tiles = 0,
                    .logit_rows = on_device + layout.logit_row_index(),
                    .num_logits = 1},
                   stream);
    EXPECT_EQ(cudaMemcpyAsync(logits.data() + i * vocab, llama->logits(), vocab * sizeof(float),
                              cudaMemcpyDeviceToHost, stream),
              cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  }
  llama.reset();
  (void)cudaFree(on_device);
  (void)cudaStreamDestroy(stream);
  return logits;
}

// Mean over positions of KL(cpu || gpu), and the share of positions with the same best token.
struct Agreement {
  double divergence = 0;
  double same_best = 0;
};

Agreement compare(const std::vector<float>& cpu, const std::vector<float>& gpu, size_t vocab) {
  Agreement result;
  const size_t positions = cpu.size() / vocab;
  for (size_t i = 0; i < positions; ++i) {
    const float* p = cpu.data() + i * vocab;
    const float* q = gpu.data() + i * vocab;
    const auto log_sum = [vocab](const float* logits) {
      const auto largest = static_cast<double>(*std::max_element(logits, logits + vocab));
      double total = 0;
      for (size_t id = 0; id < vocab; ++id)
        total += std::exp(static_cast<double>(logits[id]) - largest);
      return largest + std::log(total);
    };
    const double p_sum = log_sum(p);
    const double q_sum = log_sum(q);
    for (size_t id = 0; id < vocab; ++id) {
      const double log_p = static_cast<double>(p[id]) - p_sum;
      const double log_q = static_cast<double>(q[id]) - q_sum;
      result.divergence += std::exp(log_p) * (log_p - log_q);
    }
    result.same_best +=
        std::max_element(p, p + vocab) - p == std::max_element(q, q + vocab) - q ? 1 : 0;
  }
  result.divergence /= static_cast<double>(positions);
  result.same_best /= static_cast<double>(positions);
  return result;
}

Agreement agreement_on(const Checkpoint& checkpoint, const std::vector<int32_t>& tokens) {
  const auto vocab = static_cast<size_t>(checkpoint.spec().vocab_size);
  const Agreement result =
      compare(cpu_logits(checkpoint, tokens), gpu_logits(checkpoint, tokens), vocab);
  std::printf("%s: mean divergence %.3g over %zu positions, same best token %.3f\n",
              checkpoint.spec().name.c_str(), result.divergence, tokens.size(), result.same_best);
  return result;
}

// Sums of four uniform numbers, of deviation 0.02, as bf16.
std::vector<uint16_t> random_values(size_t count, uint64_t seed) {
  std::vector<uint16_t> values(count);
  uint64_t state = seed;
  for (uint16_t& value : values) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    const uint64_t x = (state ^ (state >> 29)) * 0xBF58476D1CE4E5B9ULL;
    int32_t sum = -2 * 65535;
    for (int part = 0; part < 4; ++part) sum += static_cast<int32_t>(x >> (16 * part) & 0xFFFF);
    value = to_bfloat16(static_cast<float>(sum) * (0.02F * 1.7320508F / 65536.0F)).bits;
  }
  return values;
}

Result<> write_random_model(const std::string& path, const formats::ModelSpec& spec) {
  formats::GgufWriter writer(path, {});
  const auto number = [](int32_t value) { return static_cast<uint32_t>(value); };
  RETURN_IF_ERROR(writer.set("general.architecture", "llama"));
  RETURN_IF_ERROR(writer.set("general.name", spec.name));
  RETURN_IF_ERROR(writer.set("llama.block_count", number(spec.num_layers)));
  RETURN_IF_ERROR(writer.set("llama.context_length", number(spec.max_position)));
  RETURN_IF_ERROR(writer.set("llama.embedding_length", number(spec.hidden_size)));
  RETURN_IF_ERROR(writer.set("llama.feed_forward_length", number(spec.intermediate_size)));
  RETURN_IF_ERROR(writer.set("llama.attention.head_count", number(spec.num_heads)));
  RETURN_IF_ERROR(writer.set("llama.attention.head_count_kv", number(spec.num_kv_heads)));
  RETURN_IF_ERROR(writer.set("llama.attention.layer_norm_rms_epsilon", spec.rms_norm_eps));
  RETURN_IF_ERROR(writer.set("llama.rope.freq_base", static_cast<float>(spec.rope_theta)));
  RETURN_IF_ERROR(writer.set("llama.vocab_size", number(spec.vocab_size)));
  struct Tensor {
    std::string name;
    int64_t rows;  // 0: a norm's weights
    int64_t columns;
  };
  const int64_t hidden = spec.hidden_size;
  const int64_t inner = spec.intermediate_size;
  std::vector<Tensor> tensors = {{"token_embd", spec.vocab_size, hidden},
                                 {"output_norm", 0, hidden}};
  for (int32_t layer = 0; layer < spec.num_layers; ++layer) {
    const std::string block = "blk." + std::to_string(layer) + ".";
    tensors.insert(tensors.end(), {{block + "attn_norm", 0, hidden},
                                   {block + "attn_q", spec.q_size(), hidden},
                                   {block + "attn_k", spec.kv_size(), hidden},
                                   {block + "attn_v", spec.kv_size(), hidden},
                                   {block + "attn_output", hidden, spec.q_size()},
                                   {block + "ffn_norm", 0, hidden},
                                   {block + "ffn_gate", inner, hidden},
                                   {block + "ffn_up", inner, hidden},
                                   {block + "ffn_down", hidden, inner}});
  }
  for (const Tensor& tensor : tensors) {
    const auto columns = static_cast<uint64_t>(tensor.columns);
    const auto rows = static_cast<uint64_t>(tensor.rows);
    RETURN_IF_ERROR(
        rows == 0 ? writer.add_tensor(tensor.name + ".weight", formats::TensorType::kF32, {columns})
                  : writer.add_tensor(tensor.name + ".weight", formats::TensorType::kBF16,
                                      {columns, rows}));
  }
  RETURN_IF_ERROR(writer.begin());
  uint64_t seed = 1;
  for (const Tensor& tensor : tensors) {
    if (tensor.rows == 0) {
      const std::vector<float> ones(static_cast<size_t>(tensor.columns), 1.0F);
      RETURN_IF_ERROR(writer.write(std::as_bytes(std::span(ones))));
    } else {
      const auto values =
          random_values(static_cast<size_t>(tensor.rows * tensor.columns), ++seed * 77);
      RETURN_IF_ERROR(writer.write(std::as_bytes(std::span(values))));
    }
  }
  return writer.finish();
}

TEST(CudaModel, ASliceOfLlama3Of8BHasTheDistributionsOfTheFloatReference) {
  const std::string path =
      std::filesystem::temp_directory_path() / ("puna-slice-" + std::to_string(getpid()) + ".gguf");
  const auto written = write_random_model(path, formats::known_spec("llama-3-8b:2").value());
  ASSERT_TRUE(written.ok()) << written.error().message();
  const auto checkpoint = Checkpoint::open(path);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.error().message();
  const Agreement result =
      agreement_on(*checkpoint, random_tokens(64, checkpoint->spec().vocab_size));
  std::filesystem::remove(path);
  EXPECT_LE(result.divergence, 1e-5);
  EXPECT_GE(result.same_best, 0.98);  // random logits have many near-ties
}

// The first window of the text that smollm2_test has, in SmolLM2's tokens.
std::vector<int32_t> english_tokens() {
  constexpr size_t kEntry = 400;  // bytes of a position, its token first
  constexpr size_t kWindow = 512;
  std::ifstream file(std::string(PUNA_GOLDEN_DIR) + "/model/smollm2.bin", std::ios::binary);
  std::vector<char> bytes(kWindow * kEntry);
  EXPECT_TRUE(file.read(bytes.data(), static_cast<std::streamsize>(bytes.size())).good());
  std::vector<int32_t> tokens(kWindow);
  for (size_t i = 0; i < kWindow; ++i)
    std::memcpy(&tokens[i], bytes.data() + i * kEntry, sizeof(int32_t));
  return tokens;
}

TEST(CudaModel, ARealModelsDistributionsAreThoseOfTheFloatReference) {
  const char* path = std::getenv("PUNA_TEST_MODEL");
  if (path == nullptr) GTEST_SKIP() << "PUNA_TEST_MODEL names no model";
  const auto checkpoint = Checkpoint::open(path);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.error().message();
  for (const auto& tokens : {english_tokens(), random_tokens(256, checkpoint->spec().vocab_size)}) {
    const Agreement result = agreement_on(*checkpoint, tokens);
    EXPECT_LE(result.divergence, 2e-5);
    EXPECT_GE(result.same_best, 0.98);
  }
}

}  // namespace
}  // namespace puna::engine
