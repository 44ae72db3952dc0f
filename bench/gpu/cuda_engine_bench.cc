// SPDX-License-Identifier: Apache-2.0
// Decode and prefill of random weights of Llama 3 8B's shape on one GPU: step times beside the
// bytes that a step must read, as a share of the read bandwidth that is measured first.
//
//   cuda_engine_bench PROMPT OUTPUT BATCH[,BATCH ...] [eager]
#include <cuda_runtime.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "base/clock.h"
#include "cli/engine_bench.h"
#include "engine/cuda_backend.h"
#include "formats/known_specs.h"
#include "kernels/cuda/read_roof.h"
#include "kv/block_id.h"

namespace puna {
namespace {

int run(int argc, char** argv) {
  if (argc < 4) {
    fmt::print(stderr, "usage: cuda_engine_bench PROMPT OUTPUT BATCH[,BATCH ...] [eager]\n");
    return 2;
  }
  const int32_t prompt = std::stoi(argv[1]);
  const int32_t output = std::stoi(argv[2]);
  std::vector<int32_t> batches;
  for (const char* at = argv[3]; at != nullptr; at = std::strchr(at, ',')) {
    if (*at == ',') ++at;
    batches.push_back(static_cast<int32_t>(std::strtol(at, nullptr, 10)));
  }
  const int32_t most = *std::max_element(batches.begin(), batches.end());
  const formats::ModelSpec spec = formats::known_spec("llama-3-8b").value();
  const SteadyClock clock;
  const TimeNs began = clock.now_ns();
  auto made = engine::make_random_cuda_backend(
      spec, {.num_blocks = most * kv::blocks_for_tokens(prompt + output),
             .max_num_seqs = most,
             .max_batch_tokens = 2048,
             .max_model_len = prompt + output,
             .graphs = argc < 5});
  if (!made.ok()) {
    fmt::print(stderr, "cuda_engine_bench: {}\n", made.error().message());
    return 1;
  }
  const engine::CudaBackendFacts& facts = made->facts;
  const double ready_s = static_cast<double>(clock.now_ns() - began) * 1e-9;
  const double roof = kernels::cuda::measure_read_gb_per_s();
  fmt::print("{}: ready in {:.1f} s, reads {:.0f} GB/s at most\n", facts.device, ready_s, roof);
  fmt::print("bytes: weights {} KV {} activations {} attention {} pinned {}; GPU memory taken {}\n",
             facts.weights, facts.kv, facts.activations, facts.attention, facts.pinned,
             facts.free_before - facts.free_after);
  fmt::print("{}", facts.products);
  const cli::ModelWork work = cli::ModelWork::in_bf16(spec);
  fmt::print(
      "batch prompt output | prefill tok/s  TFLOP/s | mean ms  p50 ms  p99 ms  tok/s  GB/s  % of "
      "read\n");
  for (const int32_t batch : batches) {
    const cli::EngineTimes times = cli::time_engine(
        *made->backend, clock, {.batch = batch, .prompt = prompt, .output = output, .chunk = 2048});
    double total = 0;
    for (const TimeNs step : times.steps) total += static_cast<double>(step);
    const double mean = total / static_cast<double>(times.steps.size()) * 1e-9;
    const double prefill = static_cast<double>(cli::quantile(times.prefill, 0.5)) * 1e-9;
    const double gb_per_s = work.decode_bytes(batch, prompt + 0.5 * output) / mean * 1e-9;
    fmt::print(
        "{:5} {:6} {:6} | {:13.0f} {:8.0f} | {:7.3f} {:7.3f} {:7.3f} {:6.0f} {:5.0f} {:5.1f}\n",
        batch, prompt, output, batch * prompt / prefill,
        batch * work.prefill_ops(prompt) / prefill * 1e-12, mean * 1e3,
        static_cast<double>(cli::quantile(times.steps, 0.5)) * 1e-6,
        static_cast<double>(cli::quantile(times.steps, 0.99)) * 1e-6, batch / mean, gb_per_s,
        100 * gb_per_s / roof);
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace
}  // namespace puna

int main(int argc, char** argv) { return puna::run(argc, argv); }
