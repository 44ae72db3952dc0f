// SPDX-License-Identifier: Apache-2.0
// What quantised files lose against the file they were made from: perplexity and the mean
// Kullback-Leibler divergence of the next-token distributions over a text, in f32 activations so
// that the weights alone differ. For compare.py beside it.
//
//   quality_bench BASE.gguf TEXT CHUNKS FILE.gguf ...    one JSON object per line, BASE first
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/thread_pool.h"
#include "model/llama.h"
#include "model/tokenizer.h"

namespace puna {
namespace {

constexpr int32_t kChunk = 512;  // tokens; the second half is scored, as llama-perplexity does
constexpr int32_t kScoredFrom = 256;
constexpr int32_t kRows = kChunk - kScoredFrom;

void log_softmax(std::span<const float> logits, std::span<float> out) {
  const float largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0.0;
  for (const float logit : logits) sum += static_cast<double>(std::exp(logit - largest));
  const auto shift = static_cast<float>(static_cast<double>(largest) + std::log(sum));
  for (size_t v = 0; v < logits.size(); ++v) out[v] = logits[v] - shift;
}

struct Scores {
  double nll = 0.0;
  double divergence = 0.0;
  int64_t same_top = 0;
  int64_t positions = 0;
};

// Log-probabilities of the scored rows of one chunk, [kRows, vocab].
class Model {
 public:
  static Result<Model> open(const std::string& path) {
    ASSIGN_OR_RETURN(formats::Checkpoint checkpoint, formats::Checkpoint::open(path));
    Model model;
    model.checkpoint_ = std::make_unique<formats::Checkpoint>(std::move(checkpoint));
    ASSIGN_OR_RETURN(model.pool_, kernels::ThreadPool::create(kernels::usable_cpus()));
    ASSIGN_OR_RETURN(model.ops_,
                     kernels::make_cpu_ops("", {.activations = kernels::ActivationMode::kFloat}));
    ASSIGN_OR_RETURN(model::Llama llama,
                     model::Llama::create(*model.checkpoint_, *model.ops_,
                                          {.max_rows = kChunk,
                                           .max_logit_rows = kRows,
                                           .num_blocks = kChunk / kernels::kKvBlockTokens}));
    model.llama_ = std::make_unique<model::Llama>(std::move(llama));
    return model;
  }

  void run(std::span<const int32_t> tokens, std::vector<float>& logprobs) const {
    std::vector<int32_t> blocks(kChunk / kernels::kKvBlockTokens);
    std::iota(blocks.begin(), blocks.end(), 0);
    std::vector<int32_t> rows(kRows);
    std::iota(rows.begin(), rows.end(), kScoredFrom - 1);
    const kernels::SequenceRows sequence{0, kChunk, 0, blocks.data()};
    const model::LlamaStep step{tokens, {&sequence, 1}, rows};
    pool_->run([&](kernels::Lane& lane) { llama_->forward(lane, step); });
    const auto vocab = static_cast<size_t>(checkpoint_->spec().vocab_size);
    logprobs.resize(static_cast<size_t>(kRows) * vocab);
    pool_->run([&](kernels::Lane& lane) {
      const kernels::Lane::Range share = lane.share(kRows);
      for (int64_t i = share.begin; i < share.end; ++i) {
        log_softmax({llama_->logits().row(i), vocab},
                    std::span(logprobs).subspan(static_cast<size_t>(i) * vocab, vocab));
      }
    });
  }
  const formats::Checkpoint& checkpoint() const { return *checkpoint_; }

 private:
  std::unique_ptr<formats::Checkpoint> checkpoint_;
  std::unique_ptr<kernels::ThreadPool> pool_;
  std::unique_ptr<kernels::Ops> ops_;
  std::unique_ptr<model::Llama> llama_;
};

void score(const std::vector<float>& base, const std::vector<float>& own,
           std::span<const int32_t> next, Scores& scores) {
  const size_t vocab = own.size() / static_cast<size_t>(kRows);
  for (size_t i = 0; i < static_cast<size_t>(kRows); ++i) {
    const float* p = &base[i * vocab];
    const float* q = &own[i * vocab];
    scores.nll -= static_cast<double>(q[static_cast<size_t>(next[i])]);
    for (size_t v = 0; v < vocab; ++v) {
      if (p[v] < -16.0F) continue;  // llama-perplexity leaves these out too
      scores.divergence += static_cast<double>(std::exp(p[v]) * (p[v] - q[v]));
    }
    scores.same_top += std::max_element(p, p + vocab) - p == std::max_element(q, q + vocab) - q;
    ++scores.positions;
  }
}

Result<> run(const std::vector<std::string>& arguments) {
  std::ifstream file(arguments[1], std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const auto most = static_cast<size_t>(std::strtoul(arguments[2].c_str(), nullptr, 10));
  std::vector<int32_t> tokens;
  std::vector<std::vector<float>> base;
  std::vector<std::string> paths = {arguments[0]};
  paths.insert(paths.end(), arguments.begin() + 3, arguments.end());
  for (const std::string& path : paths) {
    ASSIGN_OR_RETURN(const Model model, Model::open(path));
    if (tokens.empty()) {
      ASSIGN_OR_RETURN(const auto tokenizer,
                       model::Tokenizer::load(model.checkpoint().tokenizer_source()));
      tokens = tokenizer.encode(text);
    }
    const size_t chunks = std::min(most, (tokens.size() - 1) / kChunk);
    Scores scores;
    std::vector<float> own;
    for (size_t chunk = 0; chunk < chunks; ++chunk) {
      const auto window = std::span(tokens).subspan(chunk * kChunk, kChunk + 1);
      model.run(window.first(kChunk), own);
      if (base.size() == chunk) base.push_back(own);
      score(base[chunk], own, window.subspan(kScoredFrom), scores);
    }
    const auto positions = static_cast<double>(scores.positions);
    fmt::print(
        "{{\"path\": \"{}\", \"perplexity\": {:.5f}, \"divergence\": {:.6f}, "
        "\"same_top\": {:.5f}, \"positions\": {}}}\n",
        path, std::exp(scores.nll / positions), scores.divergence / positions,
        static_cast<double>(scores.same_top) / positions, scores.positions);
    std::fflush(stdout);
  }
  return Ok{};
}

}  // namespace
}  // namespace puna

int main(int argc, char** argv) {
  if (argc < 4) {
    fmt::print(stderr, "usage: quality_bench BASE.gguf TEXT CHUNKS FILE.gguf ...\n");
    return 2;
  }
  const auto done = puna::run({argv + 1, argv + argc});
  if (done.ok()) return 0;
  fmt::print(stderr, "quality_bench: {}\n", done.error().message());
  return 1;
}
