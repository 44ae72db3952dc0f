// SPDX-License-Identifier: Apache-2.0
// What a pause costs on a GPU: a long background request beside interactive streams loses its
// blocks and comes back, by way of host memory or computed again. Llama 3 8B's shape, random
// weights. On a machine with a GPU, in a folder made by tools/gpu/pack.sh: ./cuda_pause_bench
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <random>
#include <vector>

#include "base/check.h"
#include "engine/cuda_backend.h"
#include "engine/engine.h"
#include "engine/solo_run.h"
#include "formats/known_specs.h"

namespace puna::engine {
namespace {

constexpr int32_t kStreams = 16;
constexpr int32_t kStreamPrompt = 512;
constexpr int32_t kStreamOutput = 3000;
constexpr int32_t kLongest = 8000;
constexpr int32_t kVictimOutput = 400;
constexpr int32_t kBlocks = 8000;
constexpr int kTimes = 5;
constexpr int kStepsEach = 20;
constexpr int kGoingSteps = 8;  // in which the copies to the host are done

struct SilentWaker final : Waker {
  void wake() noexcept override {}
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

class PauseBench {
 public:
  explicit PauseBench(Backend& backend) : engine_(config(), backend, tokenizer_, clock_) {
    engine_.calibrate(100 * kNsPerMs);
  }

  void run(int32_t num_streams, int32_t prompt);

 private:
  static EngineConfig config() {
    EngineConfig config;
    config.prefill_chunk_tokens = 2048;
    config.prefix_cache = false;  // else it would still have some of the blocks
    config.max_queued_tokens = 1 << 20;
    return config;
  }
  ChannelPtr submit(int32_t prompt, int32_t output, RequestClass request_class) {
    Request made;
    made.prompt.resize(static_cast<size_t>(prompt));
    for (TokenId& id : made.prompt) id = static_cast<TokenId>(random_() % 100000);
    made.sampling.temperature = 0.0F;
    made.stop.max_tokens = output;
    made.stop.ignore_eos = true;
    made.request_class = request_class;
    auto submission = engine_.submit({made}, &waker_);
    CHECK(submission.ok() && submission->channels.size() == 1);
    return submission->channels[0];
  }
  double step_ms() {
    const TimeNs began_ns = clock_.now_ns();
    engine_.step();
    return static_cast<double>(clock_.now_ns() - began_ns) * 1e-6;
  }
  static bool has_news(RequestChannel& channel) {
    bool any = false;
    while (channel.next() != nullptr) any = true;
    return any;
  }

  const model::Tokenizer tokenizer_ = tiny_tokenizer();
  const SteadyClock clock_;
  SilentWaker waker_;
  std::mt19937_64 random_{7};
  Engine engine_;
};

// In ms: steps with and without the long one, and while its blocks go and come, and what passes
// until its next token.
struct Times {
  std::vector<double> with;
  std::vector<double> without;
  std::vector<double> going;
  std::vector<double> coming;
  std::vector<double> back;   // from when there is room for it again
  std::vector<double> again;  // from its pause, when there is room at once

  void print(int32_t streams, int32_t prompt, uint64_t blocks) const {
    const auto longest = [](const std::vector<double>& of) {
      return *std::max_element(of.begin(), of.end());
    };
    fmt::print(
        "{:>7} {:>7} {:>7} | {:>8.1f} {:>8.1f} | {:>8.3f} {:>8.3f} | {:>8.3f} {:>8.3f} | "
        "{:>8.3f} {:>8.3f}\n",
        streams, prompt, blocks, median(back), median(again), median(with), median(without),
        median(going), longest(going), median(coming), longest(coming));
    std::fflush(stdout);
  }
};

void PauseBench::run(int32_t num_streams, int32_t prompt) {
  std::vector<ChannelPtr> streams;
  for (int32_t i = 0; i < num_streams; ++i)
    streams.push_back(submit(kStreamPrompt, kStreamOutput, RequestClass::kInteractive));
  const ChannelPtr victim = submit(prompt, kVictimOutput, RequestClass::kBackground);
  while (!has_news(*victim)) step_ms();
  const int32_t of_streams = num_streams * kv::blocks_for_tokens(kStreamPrompt + kStreamOutput);
  const auto until_next_token = [&](std::vector<double>& steps, TimeNs began_ns) {
    while (!has_news(*victim)) steps.push_back(step_ms());
    return static_cast<double>(clock_.now_ns() - began_ns) * 1e-6;
  };
  Times times;
  for (int time = 0; time < kTimes; ++time) {
    for (int i = 0; i < kStepsEach; ++i) times.with.push_back(step_ms());
    engine_.set_pool_limit(of_streams);
    for (int i = 0; i < kGoingSteps; ++i) times.going.push_back(step_ms());
    for (int i = 0; i < kStepsEach; ++i) times.without.push_back(step_ms());
    has_news(*victim);
    engine_.set_pool_limit(kBlocks);
    times.back.push_back(until_next_token(times.coming, clock_.now_ns()));

    const TimeNs paused_ns = clock_.now_ns();
    engine_.set_pool_limit(of_streams);
    step_ms();
    engine_.set_pool_limit(kBlocks);
    times.again.push_back(until_next_token(times.coming, paused_ns));
  }
  times.print(num_streams, prompt, engine_.stats().kv_blocks_swapped_in.value() / (2 * kTimes));
  for (const ChannelPtr& stream : streams) engine_.cancel(*stream);
  engine_.cancel(*victim);
  while (engine_.step()) continue;
}

int run_all() {
  const formats::ModelSpec spec = formats::known_spec("llama-3-8b").value();
  for (const int32_t host_blocks : {0, 1024}) {
    auto made = make_random_cuda_backend(spec, {.num_blocks = kBlocks,
                                                .num_host_blocks = host_blocks,
                                                .max_num_seqs = 2 * kStreams,
                                                .max_batch_tokens = 2048,
                                                .max_model_len = kLongest + kVictimOutput});
    if (!made.ok()) {
      fmt::print(stderr, "{}\n", made.error().message());
      return 1;
    }
    fmt::print("{}, {} host blocks ({} bytes); ms\n", made->facts.device, host_blocks,
               made->facts.host_kv);
    fmt::print("{:>7} {:>7} {:>7} | {:>8} {:>8} | {:>8} {:>8} | {:>8} {:>8} | {:>8} {:>8}\n",
               "streams", "prompt", "copied", "back", "again", "with", "without", "going",
               "longest", "coming", "longest");
    for (const int32_t streams : {1, kStreams}) {
      for (const int32_t prompt : {2000, kLongest}) {
        PauseBench bench(*made->backend);
        bench.run(streams, prompt);
      }
    }
  }
  return 0;
}

}  // namespace
}  // namespace puna::engine

int main() { return puna::engine::run_all(); }
