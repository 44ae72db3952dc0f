// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <boost/json.hpp>
#include <cstdio>
#include <optional>

#include "cli/commands.h"
#include "cli/loaded_model.h"
#include "formats/known_specs.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/machine_roof.h"
#include "plan/byte_size.h"
#include "plan/capacity.h"
#include "plan/gpu_model.h"
#include "plan/known_devices.h"

namespace puna::cli {
namespace {

namespace json = boost::json;
using formats::Checkpoint;

// A token's bytes, its merges and the tables to find them: measured with SmolLM2's vocabulary.
constexpr uint64_t kTokenizerBytesPerToken = 140;

struct Planned {
  formats::ModelSpec spec;
  plan::MemoryPlan plan;
  plan::Capacity capacity;
  plan::Speed speed;
  plan::Machine machine;
  uint64_t kv_bytes_per_token = 0;
};

Result<formats::TensorType> weight_type(const std::string& name) {
  constexpr uint32_t kTypeIds = 64;  // ggml's are below
  if (name.empty()) return formats::TensorType::kBF16;
  std::string known;
  for (uint32_t id = 0; id < kTypeIds; ++id) {
    const formats::TensorTypeInfo* info = formats::find_tensor_type(id);
    if (info == nullptr) continue;
    if (info->name == name) return info->type;
    known += (known.empty() ? "" : ", ") + std::string(info->name);
  }
  return Error(ErrorCode::kInvalidArgument, "--weights {}: there are {}", name, known);
}

Result<Checkpoint> open_checkpoint(const PlanFlags& flags) {
  if (flags.shape.empty()) {
    auto checkpoint = Checkpoint::open(flags.model.model);
    if (!checkpoint.ok()) return std::move(checkpoint).error().with_context("--model");
    return checkpoint;
  }
  ASSIGN_OR_RETURN(const formats::TensorType type, weight_type(flags.weights));
  ASSIGN_OR_RETURN(const formats::ModelSpec spec, formats::known_spec(flags.shape));
  return Checkpoint::of_shape(spec, type, flags.shape);
}

// As serve has it, of which it is measured; of a shape its size is estimated.
Result<MeasuredTokenizer> tokenizer_of(const PlanFlags& flags, Checkpoint& checkpoint) {
  if (flags.shape.empty()) return load_tokenizer(checkpoint);
  return MeasuredTokenizer{.bytes = static_cast<uint64_t>(checkpoint.spec().vocab_size) *
                                    kTokenizerBytesPerToken};
}

// In this CPU's better arithmetic for the products: int8, or f32 with float activations.
Result<plan::Machine> this_machine(const ModelFlags& flags) {
  const std::string_view isa =
      flags.isa.empty() ? kernels::available_isas().back() : std::string_view(flags.isa);
  const int32_t threads = flags.threads > 0 ? flags.threads : kernels::usable_cpus();
  ASSIGN_OR_RETURN(const std::unique_ptr<kernels::RoofMeter> meter,
                   kernels::RoofMeter::create(isa, threads));
  const kernels::MachineRoof roof = meter->measure();
  const bool exact = flags.activations == kernels::ActivationMode::kFloat;
  const double int8 = roof.int8_gop_per_s > 0 ? roof.int8_gop_per_s : roof.f32_gflop_per_s;
  constexpr double kGiga = 1e9;
  return plan::Machine{.read_per_s = roof.read_gb_per_s * kGiga,
                       .ops_per_s = (exact ? roof.f32_gflop_per_s : int8) * kGiga};
}

Result<> finish(const plan::BackendCost& cost, const plan::PlanRequest& request,
                const plan::SystemMemory& memory, Planned& planned) {
  const int32_t max_position = planned.spec.max_position;
  ASSIGN_OR_RETURN(planned.plan, plan::plan_memory(cost, max_position, request, memory));
  planned.kv_bytes_per_token = plan::kv_bytes_per_token(cost, request.kv_type);
  planned.capacity = plan::capacity(cost, max_position, request, planned.plan);
  planned.speed =
      plan::estimate_speed(planned.spec, planned.plan, planned.kv_bytes_per_token, planned.machine);
  return Ok{};
}

LoadSize load_size(const PlanFlags& flags) {
  LoadSize size;
  size.server = true;
  size.max_num_seqs = flags.max_num_seqs;
  size.max_batch_tokens = flags.max_num_batched_tokens;
  size.max_queued_requests = ServeFlags{}.max_queued_requests;
  size.max_queued_tokens = ServeFlags{}.max_queued_tokens;
  return size;
}

Result<Planned> plan_cpu(const PlanFlags& flags, Checkpoint& checkpoint) {
  Planned planned;
  planned.spec = checkpoint.spec();
  ASSIGN_OR_RETURN(const plan::SystemMemory memory, plan::read_system_memory());
  ASSIGN_OR_RETURN(const MeasuredTokenizer tokenizer, tokenizer_of(flags, checkpoint));
  ASSIGN_OR_RETURN(plan::PlanRequest request,
                   plan_request(flags.model, load_size(flags), tokenizer.bytes, memory));
  if (!flags.shape.empty()) request.model = flags.shape;
  ASSIGN_OR_RETURN(planned.machine, this_machine(flags.model));
  RETURN_IF_ERROR(finish(
      [&](const engine::CpuBackendConfig& config) {
        return engine::cpu_backend_bytes(checkpoint, config);
      },
      request, memory, planned));
  return planned;
}

Result<Planned> plan_gpu(const PlanFlags& flags, const Checkpoint& checkpoint) {
  const plan::KnownDevice& device = *plan::find_device(flags.model.device);
  if (flags.model.kv_dtype && *flags.model.kv_dtype != kernels::KvType::kBF16) {
    return Error(ErrorCode::kInvalidArgument, "--kv-dtype {}: a GPU's KV pool is f16",
                 plan::kv_type_name(*flags.model.kv_dtype));
  }
  Planned planned;
  planned.spec = checkpoint.spec();
  const plan::SystemMemory memory{device.memory, device.memory};
  ASSIGN_OR_RETURN(plan::PlanRequest request,
                   plan_request(flags.model, load_size(flags), 0, memory));
  if (!flags.shape.empty()) request.model = flags.shape;
  if (request.budget_bytes == 0) request.budget_bytes = device.memory;
  request.on_device = true;
  request.kv_type = kernels::KvType::kBF16;
  request.runtime_bytes = plan::kGpuRuntimeBytes;
  planned.machine = {.read_per_s = device.read_per_s, .ops_per_s = device.bf16_ops_per_s};
  const formats::ModelSpec& spec = planned.spec;
  RETURN_IF_ERROR(
      finish([&](const engine::CpuBackendConfig& config) { return plan::gpu_bytes(spec, config); },
             request, memory, planned));
  return planned;
}

void print_text(const PlanFlags& flags, const Planned& planned) {
  const plan::MemoryPlan& plan = planned.plan;
  fmt::print("{} on {}\n{}", flags.shape.empty() ? flags.model.model : flags.shape,
             flags.model.device, plan.table());
  fmt::print("fits: {} requests of {} tokens, or {} requests of {} tokens\n",
             planned.capacity.most_sequences, plan.max_model_len, plan.max_num_seqs,
             planned.capacity.longest_context);
  if (planned.speed.prefill <= 0) return;
  constexpr double kGiga = 1e9;
  fmt::print(
      "speed at most (an estimate: bytes over {:.0f} GB/s, operations over {:.0f} GOP/s):\n"
      "  decode {:.1f} tokens/s alone, {:.0f} for {} requests together; prefill {:.0f} tokens/s\n",
      planned.machine.read_per_s / kGiga, planned.machine.ops_per_s / kGiga,
      planned.speed.decode_alone, planned.speed.decode_together, plan.max_num_seqs,
      planned.speed.prefill);
}

void print_json(const PlanFlags& flags, const Planned& planned) {
  const plan::MemoryPlan& plan = planned.plan;
  json::object owners;
  for (size_t i = 0; i < plan::kNumOwners; ++i) {
    owners[plan::owner_name(static_cast<plan::Owner>(i))] = plan.bytes[i];
  }
  const json::object out = {
      {"model", flags.shape.empty() ? flags.model.model : flags.shape},
      {"device", flags.model.device},
      {"owners", std::move(owners)},
      {"total_bytes", plan.total()},
      {"budget_bytes", plan.budget},
      {"loading_bytes", plan.loading},
      {"program_bytes", plan.program},
      {"max_model_len", plan.max_model_len},
      {"max_num_seqs", plan.max_num_seqs},
      {"max_num_batched_tokens", plan.max_batch_tokens},
      {"kv_dtype", plan.kv_dtype()},
      {"kv_blocks", plan.num_blocks},
      {"kv_bytes_per_token", planned.kv_bytes_per_token},
      {"max_connections", plan.host.max_connections},
      {"max_body_bytes", plan.host.max_body_bytes},
      {"max_total_body_bytes", plan.host.max_total_body_bytes},
      {"most_sequences", planned.capacity.most_sequences},
      {"longest_context", planned.capacity.longest_context},
      {"estimate", json::object{{"decode_tokens_per_s", planned.speed.decode_alone},
                                {"decode_tokens_per_s_together", planned.speed.decode_together},
                                {"prefill_tokens_per_s", planned.speed.prefill}}},
  };
  fmt::print("{}\n", json::serialize(out));
}

}  // namespace

Result<int> plan_command(const PlanFlags& flags) {
  ASSIGN_OR_RETURN(Checkpoint checkpoint, open_checkpoint(flags));
  ASSIGN_OR_RETURN(const Planned planned, flags.model.device == "cpu"
                                              ? plan_cpu(flags, checkpoint)
                                              : plan_gpu(flags, checkpoint));
  if (flags.json) {
    print_json(flags, planned);
  } else {
    print_text(flags, planned);
  }
  return 0;
}

}  // namespace puna::cli
