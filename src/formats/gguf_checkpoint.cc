// SPDX-License-Identifier: Apache-2.0
// ModelSpec and weights from a GGUF file: the llama.* keys, and ggml's tensor names.
#include <fmt/core.h>

#include <cstring>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "formats/checkpoint_state.h"
#include "formats/message_text.h"
#include "formats/spec_check.h"
#include "formats/weight_names.h"

namespace puna::formats {
namespace {

constexpr std::string_view kRopeFreqs = "rope_freqs.weight";

// Reads the keys of one GGUF file into a ModelSpec.
class GgufSpecReader {
 public:
  explicit GgufSpecReader(const GgufFile& file) : file_(file) {}

  Result<ModelSpec> read() {
    RETURN_IF_ERROR(read_architecture());
    RETURN_IF_ERROR(read_sizes());
    RETURN_IF_ERROR(read_heads());
    RETURN_IF_ERROR(read_vocabulary());
    RETURN_IF_ERROR(refuse_unsupported());
    RETURN_IF_ERROR(read_rope());
    return std::move(spec_);
  }

 private:
  Result<> read_architecture();
  Result<> read_sizes();
  Result<> read_heads();
  Result<> read_vocabulary();
  Result<> read_eos(std::string_view key);
  Result<> refuse_unsupported() const;
  Result<> read_rope();

  // The integer under `key`; an absent key gives `fallback` or, without one, an error.
  Result<int32_t> integer(std::string_view key,
                          std::optional<int32_t> fallback = std::nullopt) const;
  // The number under `key`, `fallback` when absent; another type is an error.
  Result<double> number(std::string_view key, std::optional<double> fallback = std::nullopt) const;
  Error bad_key(std::string_view key, std::string_view problem) const {
    return Error(ErrorCode::kCorrupt, "{}: metadata key {} {}", file_.path(), key, problem);
  }
  Error unsupported(std::string_view what) const {
    return Error(ErrorCode::kUnsupported, "{}: {}", file_.path(), what);
  }

  const GgufFile& file_;
  ModelSpec spec_;
};

Result<int32_t> GgufSpecReader::integer(std::string_view key,
                                        std::optional<int32_t> fallback) const {
  if (file_.find(key) == nullptr) {
    if (fallback) return *fallback;
    return bad_key(key, "is missing");
  }
  const auto value = file_.get_i64(key);
  if (!value) return bad_key(key, "is not an integer that fits");
  if (*value < 0 || *value > INT32_MAX)
    return bad_key(key, fmt::format("is {}, out of range", *value));
  return static_cast<int32_t>(*value);
}

Result<double> GgufSpecReader::number(std::string_view key, std::optional<double> fallback) const {
  if (file_.find(key) == nullptr) {
    if (fallback) return *fallback;
    return bad_key(key, "is missing");
  }
  const auto value = file_.get_f64(key);
  if (!value) return bad_key(key, "is not a number");
  return *value;
}

Result<> GgufSpecReader::read_architecture() {
  const auto architecture = file_.get_string("general.architecture");
  if (!architecture) return bad_key("general.architecture", "is missing: this is not a model");
  if (*architecture != "llama") {
    return unsupported(fmt::format("its architecture is {}; Puna serves \"llama\" models",
                                   in_quotes(*architecture)));
  }
  spec_.architecture = "llama";
  spec_.name = std::string(file_.get_string("general.name").value_or(""));
  spec_.rope_layout = RopeLayout::kInterleaved;
  return Ok{};
}

Result<> GgufSpecReader::read_sizes() {
  ASSIGN_OR_RETURN(spec_.num_layers, integer("llama.block_count"));
  ASSIGN_OR_RETURN(spec_.hidden_size, integer("llama.embedding_length"));
  ASSIGN_OR_RETURN(spec_.intermediate_size, integer("llama.feed_forward_length"));
  ASSIGN_OR_RETURN(spec_.max_position, integer("llama.context_length"));
  ASSIGN_OR_RETURN(const double eps, number("llama.attention.layer_norm_rms_epsilon"));
  spec_.rms_norm_eps = static_cast<float>(eps);
  return Ok{};
}

Result<> GgufSpecReader::read_heads() {
  ASSIGN_OR_RETURN(spec_.num_heads, integer("llama.attention.head_count"));
  if (spec_.num_heads == 0) return bad_key("llama.attention.head_count", "is 0");
  ASSIGN_OR_RETURN(spec_.num_kv_heads, integer("llama.attention.head_count_kv", spec_.num_heads));
  if (file_.find("llama.attention.key_length") == nullptr &&
      spec_.hidden_size % spec_.num_heads != 0) {
    return bad_key("llama.embedding_length", fmt::format("is {}, no multiple of {} heads",
                                                         spec_.hidden_size, spec_.num_heads));
  }
  ASSIGN_OR_RETURN(spec_.head_dim,
                   integer("llama.attention.key_length", spec_.hidden_size / spec_.num_heads));
  ASSIGN_OR_RETURN(const int32_t value_length,
                   integer("llama.attention.value_length", spec_.head_dim));
  if (value_length != spec_.head_dim) {
    return unsupported(
        fmt::format("its key heads have {} elements, its value heads {}; Puna needs them equal",
                    spec_.head_dim, value_length));
  }
  return Ok{};
}

Result<> GgufSpecReader::read_vocabulary() {
  const GgufTensor* embedding = file_.find_tensor(gguf_weight_name({WeightRole::kTokenEmbedding}));
  if (embedding == nullptr || embedding->dims.size() != 2 || embedding->dims[1] > kMaxVocabSize) {
    return Error(ErrorCode::kCorrupt, "{}: tensor \"token_embd.weight\" is missing or no matrix",
                 file_.path());
  }
  spec_.vocab_size = static_cast<int32_t>(embedding->dims[1]);
  ASSIGN_OR_RETURN(const int32_t announced, integer("llama.vocab_size", spec_.vocab_size));
  if (announced != spec_.vocab_size) {
    return bad_key("llama.vocab_size",
                   fmt::format("is {}, the embedding has {} rows", announced, spec_.vocab_size));
  }
  spec_.tied_head = file_.find_tensor(gguf_weight_name({WeightRole::kOutputHead})) == nullptr;
  RETURN_IF_ERROR(read_eos("tokenizer.ggml.eos_token_id"));
  RETURN_IF_ERROR(read_eos("tokenizer.ggml.eot_token_id"));
  return read_eos("tokenizer.ggml.eom_token_id");
}

Result<> GgufSpecReader::read_eos(std::string_view key) {
  if (file_.find(key) == nullptr) return Ok{};
  ASSIGN_OR_RETURN(const int32_t id, integer(key));
  for (const int32_t known : spec_.eos_token_ids) {
    if (known == id) return Ok{};
  }
  spec_.eos_token_ids.push_back(id);
  return Ok{};
}

Result<> GgufSpecReader::refuse_unsupported() const {
  ASSIGN_OR_RETURN(const int32_t experts, integer("llama.expert_count", 0));
  if (experts > 0)
    return unsupported(fmt::format("a mixture of {} experts; Puna serves dense models", experts));
  ASSIGN_OR_RETURN(const int32_t rotated, integer("llama.rope.dimension_count", spec_.head_dim));
  if (rotated != spec_.head_dim) {
    return unsupported(fmt::format("RoPE turns {} of {} elements of a head; Puna needs all",
                                   rotated, spec_.head_dim));
  }
  const std::string_view scaling = file_.get_string("llama.rope.scaling.type").value_or("none");
  if (scaling != "none") {
    return unsupported(
        fmt::format("RoPE scaling {} (llama.rope.scaling.type)", in_quotes(scaling)));
  }
  ASSIGN_OR_RETURN(const double linear, number("llama.rope.scale_linear", 1.0));
  if (linear != 1.0)
    return unsupported(fmt::format("linear RoPE scaling by {} (llama.rope.scale_linear)", linear));
  return Ok{};
}

Result<> GgufSpecReader::read_rope() {
  ASSIGN_OR_RETURN(spec_.rope_theta, number("llama.rope.freq_base", 10000.0));
  const auto pairs = static_cast<size_t>(spec_.head_dim / 2);
  if (pairs > kMaxHeadDim / 2) return bad_key("llama.attention.key_length", "is too large");
  spec_.rope_divisors.assign(pairs, 1.0F);
  const GgufTensor* freqs = file_.find_tensor(kRopeFreqs);
  if (freqs == nullptr) return Ok{};
  if (freqs->type != TensorType::kF32 || freqs->dims != std::vector<uint64_t>{pairs}) {
    return Error(ErrorCode::kCorrupt, "{}: tensor \"{}\" must be {} values of F32", file_.path(),
                 kRopeFreqs, pairs);
  }
  if (pairs > 0) std::memcpy(spec_.rope_divisors.data(), freqs->data.data(), freqs->data.size());
  return Ok{};
}

Result<NamedTensor> find_weight(const GgufFile& file, const std::string& name) {
  const GgufTensor* tensor = file.find_tensor(name);
  if (tensor == nullptr)
    return Error(ErrorCode::kCorrupt, "{}: tensor \"{}\" is missing", file.path(), name);
  return NamedTensor{tensor->name, tensor->type,
                     std::vector<uint64_t>(tensor->dims.rbegin(), tensor->dims.rend()),
                     tensor->data};
}

// A tensor that the forward pass would ignore (a bias, an adapter) changes the model: refuse it.
Result<> refuse_unused(const GgufFile& file, const std::vector<TensorView>& weights) {
  std::set<std::string_view> expected{kRopeFreqs};
  for (const TensorView& view : weights) expected.insert(view.name);
  for (const GgufTensor& tensor : file.tensors()) {
    if (expected.contains(tensor.name)) continue;
    return Error(ErrorCode::kUnsupported,
                 "{}: tensor {} is no part of a Llama model that Puna knows", file.path(),
                 in_quotes(tensor.name));
  }
  return Ok{};
}

}  // namespace

Result<std::unique_ptr<Checkpoint::State>> Checkpoint::State::from_gguf(GgufFile file) {
  auto state = std::make_unique<State>();
  state->path = file.path();
  state->gguf = std::make_unique<GgufFile>(std::move(file));
  const GgufFile& gguf = *state->gguf;
  ASSIGN_OR_RETURN(state->spec, GgufSpecReader(gguf).read());
  RETURN_IF_ERROR(check_spec(state->spec, gguf.path()));
  ASSIGN_OR_RETURN(
      state->weights,
      collect_weights(
          state->spec, gguf_weight_name,
          [&](const std::string& name) { return find_weight(gguf, name); }, gguf.path()));
  RETURN_IF_ERROR(refuse_unused(gguf, state->weights));
  for (const GgufTensor& tensor : gguf.tensors()) state->weight_bytes += tensor.data.size();
  return state;
}

}  // namespace puna::formats
