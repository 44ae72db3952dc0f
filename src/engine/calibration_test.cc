// SPDX-License-Identifier: Apache-2.0
// What an engine knows of its backend's step times before the first request.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "engine/engine_fixture.h"
#include "engine/latency_model.h"

namespace puna::engine {
namespace {

// Steps that take as long as those of Llama 3 8B on an H200, where up to some hundred rows cost
// hardly more than one.
class GpuLikeBackend final : public Backend {
 public:
  explicit GpuLikeBackend(VirtualClock& clock)
      : clock_(clock),
        backend_({.limits = {.num_blocks = 4096,
                             .max_num_seqs = 256,
                             .max_batch_tokens = 2048,
                             .max_model_len = 8192,
                             .vocab_size = kTinyVocab}},
                 nullptr) {}
  std::string_view name() const override { return "like a GPU"; }
  const BackendLimits& limits() const override { return backend_.limits(); }
  void start(const Batch& batch) override {
    StepShape shape;
    for (const BatchItem& item : batch.items) {
      item.num_tokens == 1 ? shape.add_decode(item.first_position)
                           : shape.add_prefill(item.first_position, item.num_tokens);
    }
    backend_.start(batch);
    clock_.advance(static_cast<TimeNs>(seconds(shape) * 1e9));
  }
  std::span<const SampledToken> collect() override { return backend_.collect(); }

  static double seconds(const StepShape& shape) {
    constexpr std::array<std::pair<double, double>, 7> kProducts = {
        // rows, ms
        {{0, 3.9}, {64, 4.6}, {128, 5.1}, {256, 6.5}, {512, 11.5}, {1024, 22}, {2048, 41}}};
    const double rows = shape.decode_rows + shape.prefill_tokens;
    size_t next = 1;
    while (next + 1 < kProducts.size() && kProducts[next].first < rows) ++next;
    const auto [below, below_ms] = kProducts[next - 1];
    const auto [above, above_ms] = kProducts[next];
    const double products_ms = below_ms + (above_ms - below_ms) * (rows - below) / (above - below);
    return products_ms * 1e-3 + 2.5e-6 * shape.decode_rows +
           31e-9 * static_cast<double>(shape.decode_context) +
           1.4e-9 * static_cast<double>(shape.prefill_context);
  }

 private:
  VirtualClock& clock_;
  NullBackend backend_;
};

struct CalibrationTest : EngineTest {
  double first_token_s(Engine& engine, const Request& made) {
    const ChannelPtr channel = submit(engine, made);
    const TimeNs asked_ns = clock.now_ns();
    run(engine);
    return to_seconds(channel->facts().first_token_ns - asked_ns);
  }
};

TEST_F(CalibrationTest, LearnsStepTimesWithinItsBudget) {
  constexpr TimeNs kBudget = 300 * kNsPerMs;
  Engine engine(config, backend, tokenizer, clock);
  EXPECT_EQ(engine.quote(request(100, 10))->ttft_p50_s, 0.0) << "nothing is known yet";
  engine.calibrate(kBudget);
  EXPECT_LE(clock.now_ns(), kBudget + kBudget / 8) << "one step may begin just before the end";
  EXPECT_GT(engine.quote(request(100, 10))->ttft_p50_s, 0.0);
  for (uint64_t seed = 0; seed < 8; ++seed) submit(engine, request(100, 30, seed));
  run(engine);
  const auto steps = static_cast<double>(engine.stats().predicted_steps.value());
  EXPECT_GT(steps, 30.0);
  EXPECT_LT(engine.stats().step_time_error.sum() / steps, 0.02);
}

TEST_F(CalibrationTest, OfASlowMachineIsBoundedToo) {
  NullBackendConfig slow = backend_config();
  slow.step_ns = 150 * kNsPerMs;
  slow.prefill_token_ns = 25 * kNsPerMs;
  slow.limits.max_batch_tokens = 512;
  config.prefill_chunk_tokens = 256;  // 6.5 s
  NullBackend slow_backend(slow, &clock);
  Engine engine(config, slow_backend, tokenizer, clock);
  engine.calibrate(300 * kNsPerMs);
  EXPECT_LE(clock.now_ns(), 3300 * kNsPerMs);
  const Quote quote = *engine.quote(request(100, 10));
  EXPECT_GT(quote.ttft_p50_s, 1.5) << "2.65 s of prompt";
  EXPECT_LT(quote.ttft_p50_s, 4.0);
}

// What a server promises with its first answers.
TEST_F(CalibrationTest, OfAGpuKnowsFullStepsAndManyRows) {
  GpuLikeBackend gpu(clock);
  config.prefill_chunk_tokens = 2048;
  config.max_queued_requests = 256;
  config.max_queued_tokens = 1'000'000;
  for (const int32_t prompt : {100, 500, 2000, 4000}) {
    Engine engine(config, gpu, tokenizer, clock);
    const TimeNs began_ns = clock.now_ns();
    engine.calibrate(kCalibrationBudget);
    EXPECT_LE(clock.now_ns() - began_ns, 2 * kCalibrationBudget);
    const double quoted_s = engine.quote(request(prompt, 10))->ttft_p50_s;
    const double took_s = first_token_s(engine, request(prompt, 1));
    EXPECT_NEAR(quoted_s, took_s, std::max(0.2 * took_s, 3e-3)) << prompt;
  }
  Engine engine(config, gpu, tokenizer, clock);
  engine.calibrate(kCalibrationBudget);
  for (uint64_t seed = 0; seed < 200; ++seed) submit(engine, request(600, 20, seed));
  run(engine);
  const auto steps = static_cast<double>(engine.stats().predicted_steps.value());
  EXPECT_GT(steps, 60.0);
  EXPECT_LT(engine.stats().step_time_error.sum() / steps, 0.1);
}

}  // namespace
}  // namespace puna::engine
