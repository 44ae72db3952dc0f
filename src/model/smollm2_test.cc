// SPDX-License-Identifier: Apache-2.0
// SmolLM2-135M from its GGUF against transformers in float32 on the same dequantised weights, over
// 2,048 positions of English text (tools/golden/make_model_golden.py). Needs PUNA_TEST_MODEL.
#include <gtest/gtest.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <numeric>
#include <optional>
#include <string>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/thread_pool.h"
#include "model/llama.h"

namespace puna::model {
namespace {

constexpr size_t kTop = 64;

// One position of the golden file: what transformers predicts after it.
struct Entry {
  int32_t token;  // of this position
  int32_t top1;
  float next_logprob;  // of the token that follows
  float rest_logprob;  // of all tokens but the top ones together
  uint16_t top_ids[kTop];
  float top_logprobs[kTop];
};
static_assert(sizeof(Entry) == 400);

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path;
  return {std::istreambuf_iterator<char>(file), {}};
}

struct Golden {
  Golden()
      : json(boost::json::parse(read_file(std::string(PUNA_GOLDEN_DIR) + "/model/smollm2.json"))) {
    windows = boost::json::value_to<size_t>(json.at("windows"));
    window_tokens = boost::json::value_to<size_t>(json.at("window_tokens"));
    full_every = boost::json::value_to<size_t>(json.at("full_every"));
    const std::string bytes = read_file(std::string(PUNA_GOLDEN_DIR) + "/model/smollm2.bin");
    entries.resize(windows * window_tokens);
    std::memcpy(entries.data(), bytes.data(), entries.size() * sizeof(Entry));
    full.resize((bytes.size() - entries.size() * sizeof(Entry)) / sizeof(float));
    std::memcpy(full.data(), bytes.data() + entries.size() * sizeof(Entry),
                full.size() * sizeof(float));
  }
  double number(const char* key) const { return boost::json::value_to<double>(json.at(key)); }

  boost::json::value json;
  size_t windows = 0;
  size_t window_tokens = 0;
  size_t full_every = 0;
  std::vector<Entry> entries;  // [windows * window_tokens]
  std::vector<float> full;     // log-probs of positions full_every - 1, 2 * full_every - 1, …
};

// Sums over positions.
struct Tally {
  size_t positions = 0;
  size_t same_top1 = 0;
  double divergence = 0.0;
  double full_divergence = 0.0;  // of the positions with a whole distribution
  size_t full_positions = 0;
  double scored_logprob = 0.0;  // of the second half of each window, as llama-perplexity scores
  double scored_divergence = 0.0;
  size_t scored = 0;

  double perplexity() const { return std::exp(-scored_logprob / static_cast<double>(scored)); }
};

class Evaluation {
 public:
  Evaluation(const Golden& golden, const formats::Checkpoint& checkpoint, std::string_view isa,
             const kernels::CpuOptions& options, kernels::KvType kv_type)
      : golden_(golden),
        ops_(kernels::make_cpu_ops(isa, options).value()),
        pool_(kernels::ThreadPool::create(2).value()),
        table_(golden.window_tokens / kernels::kKvBlockTokens),
        llama_(Llama::create(checkpoint, *ops_,
                             {.max_rows = kChunk,
                              .max_logit_rows = kChunk,
                              .num_blocks = static_cast<int32_t>(table_.size()),
                              .kv_type = kv_type})
                   .value()),
        vocab_(static_cast<size_t>(checkpoint.spec().vocab_size)) {
    std::iota(table_.begin(), table_.end(), 0);
  }

  Tally run(size_t windows) {
    for (size_t window = 0; window < windows; ++window) {
      for (size_t first = 0; first < golden_.window_tokens; first += kChunk)
        run_chunk(window, first);
    }
    return tally_;
  }

 private:
  static constexpr int32_t kChunk = 128;

  void run_chunk(size_t window, size_t first) {
    std::vector<int32_t> tokens(kChunk);
    std::vector<int32_t> rows(kChunk);
    std::iota(rows.begin(), rows.end(), 0);
    const size_t base = window * golden_.window_tokens + first;
    for (size_t i = 0; i < kChunk; ++i) tokens[i] = golden_.entries[base + i].token;
    const kernels::SequenceRows sequence{0, kChunk, static_cast<int32_t>(first), table_.data()};
    const LlamaStep step{tokens, {&sequence, 1}, rows};
    pool_->run([&](kernels::Lane& lane) { llama_.forward(lane, step); });
    for (size_t i = 0; i < kChunk; ++i) {
      count(first + i, base + i, {llama_.logits().row(static_cast<int64_t>(i)), vocab_});
    }
  }

  void count(size_t in_window, size_t index, std::span<const float> logits) {
    const Entry& theirs = golden_.entries[index];
    const float max = *std::max_element(logits.begin(), logits.end());
    double sum = 0.0;
    for (const float logit : logits) sum += std::exp(static_cast<double>(logit - max));
    const double log_sum = static_cast<double>(max) + std::log(sum);
    const auto logprob = [&](size_t token) { return static_cast<double>(logits[token]) - log_sum; };

    ++tally_.positions;
    tally_.same_top1 += logits[static_cast<size_t>(theirs.top1)] == max;
    double top_mass = 0.0;
    const double divergence_before = tally_.divergence;
    for (size_t k = 0; k < kTop; ++k) {
      const auto p = static_cast<double>(theirs.top_logprobs[k]);
      tally_.divergence += std::exp(p) * (p - logprob(theirs.top_ids[k]));
      top_mass += std::exp(logprob(theirs.top_ids[k]));
    }
    const auto rest = static_cast<double>(theirs.rest_logprob);
    tally_.divergence += std::exp(rest) * (rest - std::log(std::max(1e-30, 1.0 - top_mass)));
    if ((index + 1) % golden_.full_every == 0) {
      const float* full = golden_.full.data() + ((index + 1) / golden_.full_every - 1) * vocab_;
      for (size_t v = 0; v < vocab_; ++v) {
        const auto p = static_cast<double>(full[v]);
        tally_.full_divergence += std::exp(p) * (p - logprob(v));
      }
      ++tally_.full_positions;
    }
    if (in_window >= golden_.window_tokens / 2 && in_window + 1 < golden_.window_tokens) {
      tally_.scored_logprob += logprob(static_cast<size_t>(golden_.entries[index + 1].token));
      tally_.scored_divergence += tally_.divergence - divergence_before;
      ++tally_.scored;
    }
  }

  const Golden& golden_;
  std::unique_ptr<kernels::Ops> ops_;
  std::unique_ptr<kernels::ThreadPool> pool_;
  std::vector<int32_t> table_;
  Llama llama_;
  size_t vocab_;
  Tally tally_;
};

// Perplexity of the golden file's own scores over its first windows.
double golden_perplexity(const Golden& golden, size_t windows) {
  double sum = 0.0;
  size_t scored = 0;
  for (size_t window = 0; window < windows; ++window) {
    for (size_t i = golden.window_tokens / 2; i + 1 < golden.window_tokens; ++i, ++scored) {
      sum += static_cast<double>(golden.entries[window * golden.window_tokens + i].next_logprob);
    }
  }
  return std::exp(-sum / static_cast<double>(scored));
}

using kernels::ActivationMode;
using kernels::KvType;

struct Setting {
  const char* isa;
  kernels::CpuOptions options;
  KvType kv_type;
  double top1_agreement;  // at least
  double divergence;      // at most
  double perplexity;      // relative distance from float32's, at most
};

std::string setting_name(const Setting& setting) {
  constexpr const char* kActivations[] = {"_float", "_int8", "_int8_wide"};
  constexpr const char* kKv[] = {"_kv_f32", "_kv_bf16", "_kv_int8"};
  const std::optional<bool> bf16_attention = setting.options.bf16_attention;
  return std::string(setting.isa) + kActivations[static_cast<size_t>(setting.options.activations)] +
         kKv[static_cast<size_t>(setting.kv_type)] +
         (!bf16_attention   ? ""
          : *bf16_attention ? "_bf16_attention"
                            : "_f32_attention");
}

void report(const Setting& setting, const Tally& tally) {
  const auto positions = static_cast<double>(tally.positions);
  std::printf(
      "%s: %zu positions, top-1 agreement %.3f %%, mean KL %.2e (as llama-perplexity scores: "
      "%.2e), perplexity %.4f\n",
      setting_name(setting).c_str(), tally.positions,
      100.0 * static_cast<double>(tally.same_top1) / positions, tally.divergence / positions,
      tally.scored_divergence / static_cast<double>(tally.scored), tally.perplexity());
}

class SmolLm2 : public testing::TestWithParam<Setting> {};

TEST_P(SmolLm2, EqualsTransformersOnEnglishText) {
  const char* path = std::getenv("PUNA_TEST_MODEL");
  if (path == nullptr) {
    GTEST_SKIP() << "PUNA_TEST_MODEL (SmolLM2-135M-Instruct.Q4_1.gguf) is not set";
  }
  const Setting& setting = GetParam();
  const auto isas = kernels::available_isas();
  if (std::find(isas.begin(), isas.end(), setting.isa) == isas.end()) {
    GTEST_SKIP() << "this CPU has no " << setting.isa;
  }
  const Golden golden;
  const formats::Checkpoint checkpoint = formats::Checkpoint::open(path).value();
  const Tally tally = Evaluation(golden, checkpoint, setting.isa, setting.options, setting.kv_type)
                          .run(golden.windows);
  report(setting, tally);

  const auto positions = static_cast<double>(tally.positions);
  const double float32 = golden.number("perplexity_float32");
  const double llama_cpp = golden.number("perplexity_llama_cpp");
  ASSERT_GE(tally.positions, 2000U);
  ASSERT_GE(tally.full_positions, 4U);
  EXPECT_NEAR(golden_perplexity(golden, golden.windows), float32, 1e-5 * float32);
  EXPECT_GE(static_cast<double>(tally.same_top1), setting.top1_agreement * positions);
  EXPECT_LE(tally.divergence / positions, setting.divergence);
  EXPECT_LE(tally.scored_divergence / static_cast<double>(tally.scored), setting.divergence);
  EXPECT_LE(tally.full_divergence / static_cast<double>(tally.full_positions),
            4 * setting.divergence);
  EXPECT_NEAR(tally.perplexity(), float32, setting.perplexity * float32);
  EXPECT_NEAR(tally.perplexity(), llama_cpp, 0.01 * llama_cpp);
}

// llama-perplexity's own mean KL divergence on this file and text, int8 activations in groups of 32
// and f16 keys and values, against the same weights in f32: see docs/benchmarks.md.
constexpr double kLlamaCppDivergence = 0.005013;

// Activations, and where it matters whether attention is by bf16 dot products.
constexpr kernels::CpuOptions float_rows(std::optional<bool> bf16_attention = std::nullopt) {
  return {.activations = ActivationMode::kFloat, .bf16_attention = bf16_attention};
}
constexpr kernels::CpuOptions int8_rows(std::optional<bool> bf16_attention = std::nullopt) {
  return {.activations = ActivationMode::kInt8, .bf16_attention = bf16_attention};
}

INSTANTIATE_TEST_SUITE_P(
    Settings, SmolLm2,
    testing::Values(
        Setting{"avx2", float_rows(), KvType::kF32, 0.999, 1e-4, 0.001},
        Setting{"avx512", float_rows(), KvType::kF32, 0.999, 1e-4, 0.001},
        Setting{"avx512_bf16", float_rows(true), KvType::kBF16, 0.99, 1e-3, 0.002},
        // Nearer than bf16 attention, 9e-5, comes.
        Setting{"avx512_bf16", float_rows(false), KvType::kBF16, 0.99, 6e-5, 0.002},
        Setting{"avx2", int8_rows(), KvType::kBF16, 0.96, kLlamaCppDivergence, 0.01},
        Setting{"avx512", int8_rows(), KvType::kF32, 0.96, kLlamaCppDivergence, 0.01},
        Setting{"avx512_bf16", int8_rows(true), KvType::kBF16, 0.96, kLlamaCppDivergence, 0.01},
        // At the same divergence 1.3 % fewer agree than above: near-ties, of which rounding decides
        // 85 of 2,048, give or take 9 (a standard deviation).
        Setting{"avx512_bf16", int8_rows(false), KvType::kBF16, 0.95, kLlamaCppDivergence, 0.01},
        Setting{"avx512_bf16", int8_rows(true), KvType::kInt8, 0.95, 0.02, 0.01},
        Setting{"avx512_bf16", int8_rows(false), KvType::kInt8, 0.95, 0.02, 0.01}),
    [](const auto& instance) { return setting_name(instance.param); });

}  // namespace
}  // namespace puna::model
