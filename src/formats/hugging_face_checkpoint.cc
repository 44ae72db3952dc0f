// SPDX-License-Identifier: Apache-2.0
// A Hugging Face folder as a Checkpoint: config.json, generation_config.json, safetensors files.
#include <fmt/core.h>

#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "formats/checkpoint_state.h"
#include "formats/hugging_face_config.h"
#include "formats/json_text.h"
#include "formats/message_text.h"
#include "formats/quantized_folder.h"
#include "formats/spec_check.h"
#include "formats/weight_names.h"

namespace puna::formats {
namespace {

constexpr size_t kMaxConfigBytes = 4U << 20;

// generation_config.json says when to stop; config.json where that file is silent.
Result<std::vector<int32_t>> read_eos_of_folder(const std::string& folder,
                                                const boost::json::object& config,
                                                const std::string& config_path) {
  const std::string path = folder + "/generation_config.json";
  auto generation = read_json_object(path, kMaxConfigBytes);
  if (!generation.ok() && generation.error().code() != ErrorCode::kNotFound) {
    return std::move(generation).error();
  }
  if (generation.ok()) {
    ASSIGN_OR_RETURN(std::vector<int32_t> ids, read_eos_tokens(*generation, path));
    if (!ids.empty()) return ids;
  }
  return read_eos_tokens(config, config_path);
}

Error no_config(const std::string& folder) {
  std::string hint = "no Hugging Face model folder";
  std::error_code error;  // a folder that cannot be listed just gives no hint
  for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    if (entry->path().extension() == ".gguf") {
      hint = "give the GGUF file itself, " + entry->path().string();
    }
  }
  return Error(ErrorCode::kNotFound, "{}: it holds no config.json: {}", folder, hint);
}

Result<NamedTensor> find_weight(const SafetensorsFolder& files, const std::string& folder,
                                const std::string& name) {
  const SafetensorsTensor* tensor = files.find(name);
  if (tensor == nullptr)
    return Error(ErrorCode::kCorrupt, "{}: tensor \"{}\" is missing", folder, name);
  const auto type = float_type(tensor->dtype);
  if (!type) {
    return Error(ErrorCode::kUnsupported,
                 "{}: tensor {} has dtype {}, but config.json has no quantization_config", folder,
                 in_quotes(name), safetensors_dtype_name(tensor->dtype));
  }
  return NamedTensor{tensor->name, *type, tensor->dims, tensor->data};
}

// "quantization_config" in config.json, or ModelOpt's own file.
Result<std::optional<QuantSettings>> quant_settings(const boost::json::object& config,
                                                    const std::string& folder) {
  ASSIGN_OR_RETURN(auto settings, read_quant_settings(config, folder + "/config.json"));
  if (settings) return settings;
  const std::string path = folder + "/hf_quant_config.json";
  auto own = read_json_object(path, kMaxConfigBytes);
  if (own.ok()) return read_modelopt_settings(*own, path);
  if (own.error().code() != ErrorCode::kNotFound) return std::move(own).error();
  return std::optional<QuantSettings>();
}

// A tensor that the forward pass would ignore (a bias, an adapter) changes the model: refuse it.
Result<> refuse_unused(const SafetensorsFolder& files, const std::vector<TensorView>& weights,
                       const std::set<std::string, std::less<>>& parts, const std::string& folder) {
  const std::string head = hugging_face_weight_name({WeightRole::kOutputHead});
  std::set<std::string_view> expected{head};  // a tied head may be stored too
  expected.insert(parts.begin(), parts.end());
  for (const TensorView& view : weights) expected.insert(view.name);
  for (const auto& [name, tensor] : files.tensors()) {
    // Old files store the rotation frequencies, which the settings give exactly.
    if (expected.contains(name) || name.ends_with(".rotary_emb.inv_freq")) continue;
    return Error(ErrorCode::kUnsupported,
                 "{}: tensor {} is no part of a Llama model that Puna knows", folder,
                 in_quotes(name));
  }
  return Ok{};
}

}  // namespace

Result<std::unique_ptr<Checkpoint::State>> Checkpoint::State::from_hugging_face(
    const std::string& folder) {
  const std::string config_path = folder + "/config.json";
  auto config = read_json_object(config_path, kMaxConfigBytes);
  if (!config.ok() && config.error().code() == ErrorCode::kNotFound) return no_config(folder);
  if (!config.ok()) return std::move(config).error();
  auto state = std::make_unique<State>();
  state->path = folder;
  ASSIGN_OR_RETURN(state->spec, read_hugging_face_config(*config, config_path));
  ASSIGN_OR_RETURN(state->spec.eos_token_ids, read_eos_of_folder(folder, *config, config_path));
  RETURN_IF_ERROR(check_spec(state->spec, config_path));
  ASSIGN_OR_RETURN(SafetensorsFolder files, SafetensorsFolder::open(folder));
  state->safetensors = std::make_unique<SafetensorsFolder>(std::move(files));
  const SafetensorsFolder& opened = *state->safetensors;
  ASSIGN_OR_RETURN(const auto settings, quant_settings(*config, folder));
  QuantizedFolder quantized(opened, settings.value_or(QuantSettings{}), folder);
  ASSIGN_OR_RETURN(state->weights, collect_weights(
                                       state->spec, hugging_face_weight_name,
                                       [&](const std::string& name) {
                                         return settings ? quantized.find(name)
                                                         : find_weight(opened, folder, name);
                                       },
                                       folder));
  state->decoded = quantized.take_memory();
  RETURN_IF_ERROR(refuse_unused(opened, state->weights, quantized.used(), folder));
  for (const auto& [name, tensor] : opened.tensors()) state->weight_bytes += tensor->data.size();
  return state;
}

}  // namespace puna::formats
