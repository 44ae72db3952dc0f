// SPDX-License-Identifier: Apache-2.0
// The whole forward pass against transformers in float32 on the same dequantised weights, and its
// bits against itself: other chunks, threads, blocks and company give the same logits.
#include "model/llama.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <numeric>
#include <string>
#include <utility>

#include "base/sanitizers.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/thread_pool.h"

namespace puna::model {
namespace {

using formats::Checkpoint;
using kernels::kKvBlockTokens;
using kernels::SequenceRows;

const std::string kGolden = PUNA_GOLDEN_DIR;

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path;
  return {std::istreambuf_iterator<char>(file), {}};
}

template <typename T>
std::vector<T> read_array(const std::string& path) {
  const std::string bytes = read_file(path);
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
  return values;
}

constexpr kernels::CpuOptions kFloat = {.activations = kernels::ActivationMode::kFloat};

std::vector<int32_t> tiny_tokens() {
  const boost::json::value json = boost::json::parse(read_file(kGolden + "/model/tiny.json"));
  return boost::json::value_to<std::vector<int32_t>>(json.at("tokens"));
}

// How a prompt is fed: any choice must give the same bits.
struct Feed {
  int32_t chunk = 64;  // rows per step
  int32_t threads = 1;
  bool reverse_blocks = false;  // the block table descends
  int32_t company = 0;          // other sequences of that many tokens beside it in each step
  bool last_only = false;       // of each chunk only the last row's logits
  bool every_row = false;
};

// A model with one prompt in it: runs it in chunks and keeps the logits of every position.
class Runner {
 public:
  Runner(const Checkpoint& checkpoint, std::string_view isa, int32_t max_positions,
         const kernels::CpuOptions& options = kFloat)
      : ops_(kernels::make_cpu_ops(isa, options).value()),
        blocks_((max_positions + kKvBlockTokens - 1) / kKvBlockTokens),
        llama_(Llama::create(checkpoint, *ops_,
                             {.max_rows = 2 * max_positions,
                              .max_logit_rows = max_positions,
                              .num_blocks = 2 * blocks_})
                   .value()),
        vocab_(checkpoint.spec().vocab_size) {}

  std::vector<float> logits(std::span<const int32_t> prompt, const Feed& feed) {
    const auto pool = kernels::ThreadPool::create(feed.threads).value();
    std::vector<int32_t> table(static_cast<size_t>(blocks_));
    std::iota(table.begin(), table.end(), 0);
    if (feed.reverse_blocks) std::reverse(table.begin(), table.end());
    std::vector<int32_t> other_table(static_cast<size_t>(blocks_));
    std::iota(other_table.begin(), other_table.end(), blocks_);

    std::vector<float> all;
    for (size_t done = 0; done < prompt.size();) {
      const size_t count = std::min(static_cast<size_t>(feed.chunk), prompt.size() - done);
      std::vector<int32_t> tokens(static_cast<size_t>(feed.company), 7);
      const auto first_row = static_cast<int32_t>(tokens.size());
      tokens.insert(tokens.end(), prompt.begin() + static_cast<ptrdiff_t>(done),
                    prompt.begin() + static_cast<ptrdiff_t>(done + count));
      std::vector<SequenceRows> sequences;
      if (feed.company > 0) sequences.push_back({0, feed.company, 0, other_table.data()});
      sequences.push_back(
          {first_row, static_cast<int32_t>(count), static_cast<int32_t>(done), table.data()});
      std::vector<int32_t> rows(count);
      std::iota(rows.begin(), rows.end(), first_row);
      if (feed.last_only) rows.erase(rows.begin(), rows.end() - 1);
      const LlamaStep step{tokens, sequences, rows, feed.every_row};
      pool->run([&](kernels::Lane& lane) { llama_.forward(lane, step); });
      for (size_t i = 0; i < rows.size(); ++i) {
        const float* row = llama_.logits().row(static_cast<int64_t>(i));
        all.insert(all.end(), row, row + vocab_);
      }
      done += count;
    }
    return all;
  }

 private:
  std::unique_ptr<kernels::Ops> ops_;
  int32_t blocks_;
  Llama llama_;
  int32_t vocab_;
};

int32_t argmax(std::span<const float> values) {
  return static_cast<int32_t>(std::max_element(values.begin(), values.end()) - values.begin());
}

std::vector<double> log_softmax(std::span<const float> logits) {
  const auto max = static_cast<double>(*std::max_element(logits.begin(), logits.end()));
  double sum = 0.0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - max);
  std::vector<double> result;
  for (const float logit : logits)
    result.push_back(static_cast<double>(logit) - max - std::log(sum));
  return result;
}

// Sum of p * (log p - log q).
double divergence(std::span<const double> p, std::span<const double> q) {
  double sum = 0.0;
  for (size_t i = 0; i < p.size(); ++i) sum += std::exp(p[i]) * (p[i] - q[i]);
  return sum;
}

struct TinyModel {
  const char* golden;
  const char* path;
};

std::vector<std::pair<std::string_view, kernels::ActivationMode>> isas_and_modes() {
  using enum kernels::ActivationMode;
  std::vector<std::pair<std::string_view, kernels::ActivationMode>> all;
  for (const std::string_view isa : kernels::available_isas()) {
    for (const auto mode : {kFloat, kInt8, kInt8Wide}) all.emplace_back(isa, mode);
  }
  return all;
}

class TinyLlama : public testing::TestWithParam<TinyModel> {};

TEST_P(TinyLlama, LogitsEqualTransformersAtEveryPosition) {
  const Checkpoint checkpoint = Checkpoint::open(kGolden + GetParam().path).value();
  const std::vector<int32_t> tokens = tiny_tokens();
  const auto golden = read_array<float>(kGolden + "/model/" + GetParam().golden + ".f32");
  const auto vocab = static_cast<size_t>(checkpoint.spec().vocab_size);
  ASSERT_EQ(golden.size(), tokens.size() * vocab);
  for (const std::string_view isa : kernels::available_isas()) {
    Runner runner(checkpoint, isa, static_cast<int32_t>(tokens.size()));
    const std::vector<float> logits = runner.logits(tokens, {});
    double kl = 0.0;
    for (size_t i = 0; i < tokens.size(); ++i) {
      const std::span ours = std::span(logits).subspan(i * vocab, vocab);
      const std::span theirs = std::span(golden).subspan(i * vocab, vocab);
      // The same choice, or one that transformers gives the same logit but for rounding.
      const float best = theirs[static_cast<size_t>(argmax(theirs))];
      EXPECT_LE(best - theirs[static_cast<size_t>(argmax(ours))], 0.005F)
          << isa << " position " << i;
      for (size_t v = 0; v < vocab; ++v)
        ASSERT_NEAR(ours[v], theirs[v], 0.02) << isa << " position " << i;
      kl += divergence(log_softmax(theirs), log_softmax(ours));
    }
    EXPECT_LE(kl / static_cast<double>(tokens.size()), 1e-5) << isa;
  }
}

TEST_P(TinyLlama, SameBitsHoweverItIsFed) {
  const Checkpoint checkpoint = Checkpoint::open(kGolden + GetParam().path).value();
  std::vector<int32_t> tokens = tiny_tokens();
  if (PUNA_SANITIZED) tokens.resize(tokens.size() / 2);
  for (const auto& [isa, mode] : isas_and_modes()) {
    Runner runner(checkpoint, isa, static_cast<int32_t>(tokens.size()), {.activations = mode});
    const std::vector<float> whole = runner.logits(tokens, {.chunk = 1000});
    for (const Feed feed :
         {Feed{.chunk = 1}, Feed{.chunk = 17, .threads = 2},
          Feed{.chunk = 64, .threads = 3, .reverse_blocks = true},
          Feed{.chunk = 5, .threads = 2, .company = 33}, Feed{.chunk = 1, .company = 1}}) {
      const std::vector<float> other = runner.logits(tokens, feed);
      ASSERT_EQ(whole.size(), other.size());
      EXPECT_EQ(std::memcmp(whole.data(), other.data(), whole.size() * sizeof(float)), 0)
          << isa << " mode " << static_cast<int>(mode) << ": chunk " << feed.chunk << ", threads "
          << feed.threads << ", company " << feed.company;
    }
  }
}

// Rows without logits end in the middle of the last layer; those with logits don't notice.
TEST_P(TinyLlama, SameBitsWhereFewRowsHaveLogits) {
  const Checkpoint checkpoint = Checkpoint::open(kGolden + GetParam().path).value();
  const std::vector<int32_t> tokens = tiny_tokens();
  const auto vocab = static_cast<size_t>(checkpoint.spec().vocab_size);
  for (const auto& [isa, mode] : isas_and_modes()) {
    Runner runner(checkpoint, isa, static_cast<int32_t>(tokens.size()), {.activations = mode});
    const std::vector<float> whole = runner.logits(tokens, {.chunk = 1000, .every_row = true});
    for (const Feed feed :
         {Feed{.chunk = 7, .last_only = true},
          Feed{.chunk = 16, .threads = 2, .company = 5, .last_only = true},
          Feed{.chunk = 16, .company = 5, .last_only = true, .every_row = true}}) {
      const std::vector<float> few = runner.logits(tokens, feed);
      const auto chunk = static_cast<size_t>(feed.chunk);
      ASSERT_EQ(few.size(), (tokens.size() + chunk - 1) / chunk * vocab);
      for (size_t i = 0; i * vocab < few.size(); ++i) {
        const size_t row = std::min((i + 1) * chunk, tokens.size()) - 1;
        EXPECT_EQ(std::memcmp(&few[i * vocab], &whole[row * vocab], vocab * sizeof(float)), 0)
            << isa << " mode " << static_cast<int>(mode) << ", row " << row;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Models, TinyLlama,
    testing::Values(TinyModel{"tiny_llama_hf", "/tiny_llama_hf"},
                    TinyModel{"tiny_llama_hf_tied", "/tiny_llama_hf_tied"},
                    TinyModel{"tiny_gguf", "/tiny_llama_gguf/tiny.gguf"},
                    TinyModel{"tiny_gguf_tied", "/tiny_llama_gguf/tiny-tied-00001-of-00002.gguf"}),
    [](const auto& instance) { return instance.param.golden; });

TEST(Llama, SaysHowMuchMemoryItWanted) {
  const Checkpoint checkpoint = Checkpoint::open(kGolden + "/tiny_llama_hf").value();
  const auto ops = kernels::make_cpu_ops("").value();
  const auto llama = Llama::create(checkpoint, *ops, {.num_blocks = INT32_MAX});
  ASSERT_FALSE(llama.ok());
  EXPECT_EQ(llama.error().code(), ErrorCode::kResourceExhausted);
  const uint64_t wanted = Llama::bytes(checkpoint, *ops, {.num_blocks = INT32_MAX}).kv;
  EXPECT_GE(wanted, 8192ULL * INT32_MAX);  // 2 layers x (K, V) x 2 heads x 16 x 16 x 4 bytes each
  EXPECT_NE(llama.error().message().find(std::to_string(wanted)), std::string::npos)
      << llama.error().message();
}

}  // namespace
}  // namespace puna::model
