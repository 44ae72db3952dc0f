// SPDX-License-Identifier: Apache-2.0
#include "cli/bench_gpu.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cstdio>
#include <utility>
#include <vector>

#include "cli/cuda_model.h"
#include "cli/engine_bench.h"
#include "cli/warm_up.h"
#include "kv/block_id.h"
#include "plan/memory_model.h"

namespace puna::cli {
namespace {

namespace json = boost::json;

constexpr TimeNs kGpuWarmUpBudget = kNsPerSecond;
constexpr int32_t kGraphTimes = 20;
constexpr size_t kLastSteps = 8;  // beside the last one's graph

struct GpuResult {
  EngineBenchCase work;
  double prefill_tokens_per_s = 0;  // median
  double prefill_tflop_per_s = 0;
  double step_ms = 0;  // mean
  double step_ms_p50 = 0;
  double step_ms_p99 = 0;
  double decode_tokens_per_s = 0;
  double decode_gb_per_s = 0;  // bytes that a step must read, by the mean step
  double graph_ms = 0;         // of the last step, without the host between
  double host_share = 0;       // of the last steps: what they took beyond the graph
};

// The host's share of the last steps, once their graph's time is known.
void add_graph(GpuResult& result, const EngineTimes& times, double graph_ms) {
  const size_t count = std::min(kLastSteps, times.steps.size());
  double last_ms = 0;
  for (size_t i = 1; i <= count; ++i)
    last_ms += static_cast<double>(times.steps[times.steps.size() - i]) * 1e-6;
  last_ms /= static_cast<double>(count);
  result.graph_ms = graph_ms;
  result.host_share = graph_ms > 0 ? 1 - graph_ms / last_ms : 0;
}

GpuResult summarise_gpu(const EngineBenchCase& work, const EngineTimes& times,
                        const ModelWork& model) {
  const double prefill_s = static_cast<double>(quantile(times.prefill, 0.5)) * 1e-9;
  double decode_s = 0;
  for (const TimeNs step : times.steps) decode_s += static_cast<double>(step) * 1e-9;
  const double step_s = decode_s / static_cast<double>(times.steps.size());
  const double context = work.prompt + 0.5 * (work.output + 1);
  GpuResult result;
  result.work = work;
  result.prefill_tokens_per_s = work.batch * work.prompt / prefill_s;
  result.prefill_tflop_per_s = work.batch * model.prefill_ops(work.prompt) / prefill_s * 1e-12;
  result.step_ms = step_s * 1e3;
  result.step_ms_p50 = static_cast<double>(quantile(times.steps, 0.5)) * 1e-6;
  result.step_ms_p99 = static_cast<double>(quantile(times.steps, 0.99)) * 1e-6;
  result.decode_tokens_per_s = work.batch / step_s;
  result.decode_gb_per_s = model.decode_bytes(work.batch, context) / step_s * 1e-9;
  return result;
}

void print_json(const std::string& model, const engine::CudaBackendFacts& facts, double roof,
                double ready_s, const std::vector<GpuResult>& results) {
  json::array rows;
  for (const GpuResult& result : results) {
    rows.push_back(json::object{{"batch", result.work.batch},
                                {"prompt", result.work.prompt},
                                {"output", result.work.output},
                                {"chunk", result.work.chunk},
                                {"prefill_tokens_per_s", result.prefill_tokens_per_s},
                                {"prefill_tflop_per_s", result.prefill_tflop_per_s},
                                {"step_ms_mean", result.step_ms},
                                {"step_ms_p50", result.step_ms_p50},
                                {"step_ms_p99", result.step_ms_p99},
                                {"decode_tokens_per_s", result.decode_tokens_per_s},
                                {"graph_ms", result.graph_ms},
                                {"host_share", result.host_share},
                                {"read_gb_per_s", result.decode_gb_per_s},
                                {"fraction_of_read_bandwidth", result.decode_gb_per_s / roof}});
  }
  const json::object out = {
      {"model", model},
      {"device", facts.device},
      {"roof_read_gb_per_s", roof},
      {"ready_s", ready_s},
      {"device_bytes", facts.weights + facts.kv + facts.activations + facts.attention},
      {"results", std::move(rows)}};
  fmt::print("{}\n", json::serialize(out));
}

void print_header(const std::string& model, const engine::CudaBackendFacts& facts, double roof,
                  double ready_s) {
  fmt::print("{} on {}: ready in {:.1f} s, reads {:.0f} GB/s at most\n{}{}", model, facts.device,
             ready_s, roof, device_memory(facts).table(), facts.products);
  fmt::print(
      "{:>5} {:>6} {:>6} | {:>11} {:>7} | {:>8} {:>8} {:>8} {:>10} {:>6} {:>6} {:>8} {:>6}\n",
      "batch", "prompt", "output", "prefill t/s", "TFLOP/s", "mean ms", "p50 ms", "p99 ms",
      "decode t/s", "GB/s", "% read", "graph ms", "% host");
}

void print_row(const GpuResult& result, double roof) {
  fmt::print(
      "{:>5} {:>6} {:>6} | {:>11.0f} {:>7.0f} | {:>8.3f} {:>8.3f} {:>8.3f} {:>10.0f} {:>6.0f} "
      "{:>6.1f} {:>8.3f} {:>6.2f}\n",
      result.work.batch, result.work.prompt, result.work.output, result.prefill_tokens_per_s,
      result.prefill_tflop_per_s, result.step_ms, result.step_ms_p50, result.step_ms_p99,
      result.decode_tokens_per_s, result.decode_gb_per_s, 100 * result.decode_gb_per_s / roof,
      result.graph_ms, 100 * result.host_share);
  std::fflush(stdout);
}

}  // namespace

Result<int> bench_engine_on_gpu(const BenchEngineFlags& flags) {
  const SteadyClock clock;
  const TimeNs began = clock.now_ns();
  ASSIGN_OR_RETURN(const ModelSource source, ModelSource::open(flags.model));
  const formats::ModelSpec& spec = source.spec();
  const int32_t length = flags.prompt + flags.output;
  LoadSize size;
  size.max_num_seqs = *std::max_element(flags.batch.begin(), flags.batch.end());
  size.max_batch_tokens = std::max({plan::kGpuBatchTokens, size.max_num_seqs, flags.chunk});
  size.max_queued_tokens = 0;
  size.max_model_len = length;
  ASSIGN_OR_RETURN(const PlannedBackend planned, load_cuda_backend(source, flags.model, size));
  const int64_t wanted = int64_t{kv::blocks_for_tokens(length)} * size.max_num_seqs;
  if (wanted > planned.plan.num_blocks) {
    return Error(ErrorCode::kResourceExhausted,
                 "--batch {} with {} tokens each needs {} KV blocks, but {} fit on {}: lower "
                 "--batch or --prompt",
                 size.max_num_seqs, length, wanted, planned.plan.num_blocks, planned.gpu->device);
  }
  const double ready_s = static_cast<double>(clock.now_ns() - began) * 1e-9;
  const int32_t device = cuda_ordinal(flags.model.device).value_or(0);
  ASSIGN_OR_RETURN(const double roof, engine::measure_cuda_read(device));
  warm_up(*planned.backend, clock, kGpuWarmUpBudget);
  const ModelWork model = ModelWork::in_16_bits(spec);
  const std::string name =
      flags.model.random_weights.empty() ? flags.model.model : flags.model.random_weights;
  if (!flags.json) print_header(name, *planned.gpu, roof, ready_s);
  std::vector<GpuResult> results;
  for (const int32_t batch : flags.batch) {
    const EngineBenchCase work = {.batch = batch,
                                  .prompt = flags.prompt,
                                  .output = flags.output,
                                  .chunk = flags.chunk > 0 ? flags.chunk : size.max_batch_tokens};
    const EngineTimes times = time_engine(*planned.backend, clock, work);
    results.push_back(summarise_gpu(work, times, model));
    add_graph(results.back(), times, engine::time_cuda_graph(*planned.backend, kGraphTimes));
    if (!flags.json) print_row(results.back(), roof);
  }
  if (flags.json) print_json(name, *planned.gpu, roof, ready_s, results);
  return 0;
}

}  // namespace puna::cli
