// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cstdio>

#include "cli/bench_gpu.h"
#include "cli/bench_machine.h"
#include "cli/commands.h"
#include "cli/engine_bench.h"
#include "cli/loaded_model.h"
#include "cli/warm_up.h"
#include "kernels/cpu/isa.h"
#include "plan/byte_size.h"
#include "plan/memory_model.h"

namespace puna::cli {
namespace {

namespace json = boost::json;

constexpr TimeNs kBenchWarmUpBudget = kNsPerSecond;
constexpr int32_t kPeakRows = 32;

struct EngineBenchResult {
  EngineBenchCase work;
  double prefill_tokens_per_s = 0;  // median
  double prefill_gop_per_s = 0;
  double decode_tokens_per_s = 0;  // all tokens by all time
  double step_ms_p50 = 0;
  double step_ms_p99 = 0;
  double decode_gop_per_s = 0;
  double read_gb_per_s = 0;  // of the median step
  double roof_gb_per_s = 0;  // the higher of just before and just after
};

// What limits the model's matrices when many rows share them.
struct Peak {
  std::string_view name;  // "int8"
  double gop_per_s = 0;
};

Result<kernels::ActivationType> input_type(const formats::Checkpoint& checkpoint,
                                           const ModelFlags& flags) {
  ASSIGN_OR_RETURN(const std::unique_ptr<kernels::Ops> ops,
                   kernels::make_cpu_ops(flags.isa, {.activations = flags.activations}));
  const formats::TensorView& tensor = checkpoint.tensor({formats::WeightRole::kFfnUp, 0});
  const int64_t rows = std::min<int64_t>(tensor.rows, kPeakRows);
  const auto bytes = tensor.data.size() / static_cast<size_t>(tensor.rows);
  const kernels::MatrixPart part = {.type = tensor.type,
                                    .rows = rows,
                                    .columns = tensor.columns,
                                    .data = tensor.data.first(bytes * static_cast<size_t>(rows))};
  ASSIGN_OR_RETURN(const std::unique_ptr<kernels::PackedMatrix> matrix,
                   ops->pack({&part, 1}, {.head_dim = checkpoint.spec().head_dim}));
  return matrix->input().type;
}

std::string_view kv_type_name(kernels::KvType type) {
  if (type == kernels::KvType::kF32) return "f32";
  return type == kernels::KvType::kBF16 ? "bf16" : "int8";
}

Peak peak_of(kernels::ActivationType type, const kernels::MachineRoof& roof) {
  if (type == kernels::ActivationType::kInt8) return {"int8", roof.int8_gop_per_s};
  // Without bf16 dot products, bf16 rows are multiplied as f32.
  if (type == kernels::ActivationType::kBF16 && roof.bf16_gflop_per_s > 0) {
    return {"bf16", roof.bf16_gflop_per_s};
  }
  return {"f32", roof.f32_gflop_per_s};
}

EngineBenchResult summarise(const EngineBenchCase& work, const EngineTimes& times,
                            const ModelWork& model) {
  const double prefill_s = static_cast<double>(quantile(times.prefill, 0.5)) * 1e-9;
  const double step_s = static_cast<double>(quantile(times.steps, 0.5)) * 1e-9;
  double decode_s = 0;
  for (const TimeNs step : times.steps) decode_s += static_cast<double>(step) * 1e-9;
  // A step sees its own position too; the median step is in the middle.
  const double context = work.prompt + 0.5 * (work.output + 1);
  EngineBenchResult result;
  result.work = work;
  result.prefill_tokens_per_s = work.batch * work.prompt / prefill_s;
  result.prefill_gop_per_s = work.batch * model.prefill_ops(work.prompt) / prefill_s * 1e-9;
  result.decode_tokens_per_s = work.batch * static_cast<double>(times.steps.size()) / decode_s;
  result.step_ms_p50 = step_s * 1e3;
  result.step_ms_p99 = static_cast<double>(quantile(times.steps, 0.99)) * 1e-6;
  result.decode_gop_per_s = model.decode_ops(work.batch, context) / step_s * 1e-9;
  result.read_gb_per_s = model.decode_bytes(work.batch, context) / step_s * 1e-9;
  return result;
}

struct EngineReport {
  std::string model;
  std::string types;
  std::string_view kv_type;
  double step_bytes = 0;  // weights that a decode step reads
  MachineFacts machine;
  Peak peak;
  std::vector<EngineBenchResult> results;
};

void print_json(const EngineReport& report) {
  json::array results;
  for (const EngineBenchResult& result : report.results) {
    results.push_back(
        json::object{{"batch", result.work.batch},
                     {"prompt", result.work.prompt},
                     {"output", result.work.output},
                     {"chunk", result.work.chunk},
                     {"prefill_tokens_per_s", result.prefill_tokens_per_s},
                     {"prefill_gop_per_s", result.prefill_gop_per_s},
                     {"prefill_fraction_of_peak", result.prefill_gop_per_s / report.peak.gop_per_s},
                     {"decode_tokens_per_s", result.decode_tokens_per_s},
                     {"decode_gop_per_s", result.decode_gop_per_s},
                     {"step_ms_p50", result.step_ms_p50},
                     {"step_ms_p99", result.step_ms_p99},
                     {"read_gb_per_s", result.read_gb_per_s},
                     {"roof_read_gb_per_s", result.roof_gb_per_s},
                     {"fraction_of_read_bandwidth", result.read_gb_per_s / result.roof_gb_per_s}});
  }
  const json::object out = {
      {"model", report.model},        {"types", report.types},
      {"kv_dtype", report.kv_type},   {"weight_bytes_per_step", report.step_bytes},
      {"peak", report.peak.name},     {"machine", machine_json(report.machine)},
      {"results", std::move(results)}};
  fmt::print("{}\n", json::serialize(out));
}

void print_text(const EngineReport& report) {
  fmt::print("{} ({}, {} of weights a step, {} keys and values)\n{}", report.model, report.types,
             plan::format_bytes(static_cast<uint64_t>(report.step_bytes)), report.kv_type,
             machine_text(report.machine));
  fmt::print("{:>5} {:>6} {:>6} | {:>11} {:>7} {:>9} | {:>10} {:>8} {:>8} {:>6} {:>7} {:>7}\n",
             "batch", "prompt", "output", "prefill t/s", "GOP/s",
             "% of " + std::string(report.peak.name), "decode t/s", "p50 ms", "p99 ms", "GB/s",
             "% read", "GOP/s");
  for (const EngineBenchResult& result : report.results) {
    fmt::print(
        "{:>5} {:>6} {:>6} | {:>11.1f} {:>7.0f} {:>9.0f} | {:>10.1f} {:>8.2f} {:>8.2f} {:>6.1f} "
        "{:>7.0f} {:>7.0f}\n",
        result.work.batch, result.work.prompt, result.work.output, result.prefill_tokens_per_s,
        result.prefill_gop_per_s, 100 * result.prefill_gop_per_s / report.peak.gop_per_s,
        result.decode_tokens_per_s, result.step_ms_p50, result.step_ms_p99, result.read_gb_per_s,
        100 * result.read_gb_per_s / result.roof_gb_per_s, result.decode_gop_per_s);
  }
}

Result<> check_length(const BenchEngineFlags& flags, const formats::ModelSpec& spec) {
  if (flags.prompt + flags.output <= spec.max_position) return Ok{};
  return Error(ErrorCode::kInvalidArgument,
               "--prompt {} and --output {} are beyond the {} positions of {}", flags.prompt,
               flags.output, spec.max_position, flags.model.model);
}

Result<PlannedBackend> load(const BenchEngineFlags& flags, const ModelSource& source) {
  LoadSize size;
  size.max_num_seqs = *std::max_element(flags.batch.begin(), flags.batch.end());
  size.max_batch_tokens = std::max({plan::kDefaultBatchTokens, size.max_num_seqs, flags.chunk});
  size.max_queued_tokens = 0;
  size.max_model_len = flags.prompt + flags.output;
  size.whole_kv_pool = true;
  ASSIGN_OR_RETURN(PlannedBackend planned, load_backend(source, flags.model, size));
  const int64_t wanted = int64_t{kv::blocks_for_tokens(size.max_model_len)} * size.max_num_seqs;
  if (wanted <= planned.plan.num_blocks) return planned;
  return Error(ErrorCode::kResourceExhausted,
               "--batch {} with {} tokens each needs {} KV blocks, but {} fit in {}: lower --batch "
               "or raise --memory-budget",
               size.max_num_seqs, size.max_model_len, wanted, planned.plan.num_blocks,
               plan::format_bytes(planned.plan.budget));
}

}  // namespace

Result<int> bench_engine(const BenchEngineFlags& flags) {
  if (cuda_ordinal(flags.model.device)) return bench_engine_on_gpu(flags);
  EngineReport report;
  ASSIGN_OR_RETURN(report.machine, machine_facts(flags.model.threads, flags.model.isa));
  ASSIGN_OR_RETURN(const ModelSource source, ModelSource::open(flags.model));
  const formats::Checkpoint* const checkpoint = source.checkpoint();
  RETURN_IF_ERROR(check_length(flags, source.spec()));
  ASSIGN_OR_RETURN(const kernels::ActivationType input, input_type(*checkpoint, flags.model));
  ASSIGN_OR_RETURN(const PlannedBackend planned, load(flags, source));
  ASSIGN_OR_RETURN(const auto meter,
                   kernels::RoofMeter::create(report.machine.isa, report.machine.threads));

  const auto pool_positions = static_cast<uint64_t>(planned.plan.num_blocks) * kv::kBlockTokens;
  const ModelWork model =
      ModelWork::of(*checkpoint, planned.plan.of(plan::Owner::kKvPool) / pool_positions);
  report.model = flags.model.model;
  report.types = std::string(checkpoint->type_summary());
  report.kv_type = kv_type_name(flags.model.kv_type());
  report.step_bytes = model.layer_bytes + model.head_bytes;
  const SteadyClock clock;
  warm_up(*planned.backend, clock, kBenchWarmUpBudget);
  report.machine.roof = meter->measure();
  for (const int32_t batch : flags.batch) {
    const EngineBenchCase work = {.batch = batch,
                                  .prompt = flags.prompt,
                                  .output = flags.output,
                                  .chunk = flags.chunk > 0 ? flags.chunk : kPrefillChunkTokens};
    const double before = meter->read_gb_per_s();
    const EngineTimes times = time_engine(*planned.backend, clock, work);
    report.results.push_back(summarise(work, times, model));
    report.results.back().roof_gb_per_s = std::max(before, meter->read_gb_per_s());
  }
  report.machine.roof = higher(report.machine.roof, meter->measure());
  for (const EngineBenchResult& result : report.results) {
    double& read = report.machine.roof.read_gb_per_s;
    read = std::max(read, result.roof_gb_per_s);
  }
  report.peak = peak_of(input, report.machine.roof);
  if (flags.json) {
    print_json(report);
  } else {
    print_text(report);
  }
  return 0;
}

}  // namespace puna::cli
