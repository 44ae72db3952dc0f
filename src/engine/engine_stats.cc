// SPDX-License-Identifier: Apache-2.0
// Bucket bounds of the engine's histograms. They cover vLLM's ranges, so that its dashboards work;
// inter-token and step times go lower, as a small model on a CPU takes a few milliseconds per step.
#include "engine/engine.h"

namespace puna::engine {
namespace {

constexpr double kTimeToFirstToken[] = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1,
                                        0.25,  0.5,   0.75, 1.0,  2.5,  5.0,  7.5,  10.0,
                                        20.0,  40.0,  80.0, 160,  640,  2560};
constexpr double kStepTime[] = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075,
                                0.1,    0.15,  0.2,    0.3,   0.4,  0.5,   0.75, 1.0,
                                2.5,    5.0,   7.5,    10.0,  20.0, 40.0,  80.0};
constexpr double kRequestTime[] = {0.01, 0.05, 0.1,  0.3,  0.5,  0.8,  1.0,   1.5,
                                   2.0,  2.5,  5.0,  10.0, 15.0, 20.0, 30.0,  40.0,
                                   50.0, 60.0, 120., 240., 480., 960., 1920., 7680.};
constexpr double kStepTimeError[] = {0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0};
constexpr double kOverQuote[] = {0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 5.0};
constexpr double kRequestTokens[] = {1,    2,    5,    10,    20,    50,    100,    200,   500,
                                     1000, 2000, 5000, 10000, 20000, 50000, 100000, 200000};
constexpr double kIterationTokens[] = {1,   8,    16,   32,   64,   128,  256,
                                       512, 1024, 2048, 4096, 8192, 16384};

}  // namespace

EngineStats::EngineStats(size_t num_tenants)
    : tenants(num_tenants),
      step_time_error(kStepTimeError),
      time_to_first_token_s(kTimeToFirstToken),
      ttft_over_quote(kOverQuote),
      inter_token_latency_s(kStepTime),
      e2e_latency_s(kRequestTime),
      queue_time_s(kRequestTime),
      prefill_time_s(kRequestTime),
      decode_time_s(kRequestTime),
      request_prompt_tokens(kRequestTokens),
      request_generation_tokens(kRequestTokens),
      iteration_tokens(kIterationTokens),
      step_time_s(kStepTime) {}

}  // namespace puna::engine
