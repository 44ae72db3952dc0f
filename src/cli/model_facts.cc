// SPDX-License-Identifier: Apache-2.0
#include "cli/model_facts.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <map>
#include <utility>

#include "engine/cpu_backend.h"
#include "formats/checkpoint.h"
#include "formats/gguf.h"
#include "model/chat_template.h"
#include "model/tokenizer.h"
#include "plan/memory_model.h"

namespace puna::cli {
namespace {

using formats::Checkpoint;
using formats::WeightRole;

void gather_gguf_tensors(const formats::GgufFile& file, ModelFacts& facts) {
  for (const formats::GgufTensor& tensor : file.tensors()) {
    TensorFacts entry;
    entry.name = tensor.name;
    entry.type = formats::tensor_type_name(tensor.type);
    entry.shape.assign(tensor.dims.rbegin(), tensor.dims.rend());
    entry.bytes = tensor.data.size();
    facts.tensors.push_back(std::move(entry));
  }
}

void add_role(const Checkpoint& checkpoint, formats::WeightId id, ModelFacts& facts) {
  const formats::TensorView& view = checkpoint.tensor(id);
  TensorFacts entry;
  entry.name = view.name;
  entry.type = formats::tensor_type_name(view.type);
  if (view.rows > 1) entry.shape.push_back(static_cast<uint64_t>(view.rows));
  entry.shape.push_back(static_cast<uint64_t>(view.columns));
  entry.bytes = view.data.size();
  facts.tensors.push_back(std::move(entry));
}

void gather_folder_tensors(const Checkpoint& checkpoint, ModelFacts& facts) {
  constexpr std::array kLayerRoles = {
      WeightRole::kAttnNorm, WeightRole::kAttnQ,      WeightRole::kAttnK,
      WeightRole::kAttnV,    WeightRole::kAttnOutput, WeightRole::kFfnNorm,
      WeightRole::kFfnGate,  WeightRole::kFfnUp,      WeightRole::kFfnDown};
  add_role(checkpoint, {WeightRole::kTokenEmbedding}, facts);
  for (int32_t layer = 0; layer < checkpoint.spec().num_layers; ++layer) {
    for (const WeightRole role : kLayerRoles) add_role(checkpoint, {role, layer}, facts);
  }
  add_role(checkpoint, {WeightRole::kOutputNorm}, facts);
  if (!checkpoint.spec().tied_head) add_role(checkpoint, {WeightRole::kOutputHead}, facts);
}

void count_tensors(ModelFacts& facts) {
  std::map<std::string, TypeFacts> by_type;
  for (const TensorFacts& tensor : facts.tensors) {
    uint64_t elements = 1;
    for (const uint64_t dim : tensor.shape) elements *= dim;
    // Frequency divisors are settings, not parameters.
    if (tensor.name != "rope_freqs.weight") facts.parameters += elements;
    TypeFacts& type = by_type[tensor.type];
    type.type = tensor.type;
    ++type.tensors;
    type.bytes += tensor.bytes;
  }
  for (auto& [name, type] : by_type) facts.types.push_back(std::move(type));
  std::stable_sort(facts.types.begin(), facts.types.end(),
                   [](const TypeFacts& a, const TypeFacts& b) { return a.bytes > b.bytes; });
}

std::string tokenizer_kind(const formats::TokenizerSource& source) {
  if (source.gguf != nullptr) {
    return fmt::format(
        "{}, {}", source.gguf->get_string("tokenizer.ggml.model").value_or("no kind named"),
        source.gguf->get_string("tokenizer.ggml.pre").value_or("no splitting named"));
  }
  const bool json =
      std::filesystem::exists(std::filesystem::path(source.folder) / "tokenizer.json");
  return json ? "tokenizer.json" : "tokenizer.model";
}

void gather_special_tokens(const model::Tokenizer& tokenizer, ModelFacts& facts) {
  const auto ends = tokenizer.end_of_generation();
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    if (!tokenizer.is_special(id)) continue;
    SpecialToken token;
    token.id = id;
    token.text = tokenizer.token_bytes(id);
    std::vector<std::string_view> roles;
    if (tokenizer.bos() == id) roles.push_back("bos");
    if (tokenizer.eos() == id) roles.push_back("eos");
    if (std::find(ends.begin(), ends.end(), id) != ends.end()) roles.push_back("ends an answer");
    token.role = fmt::format("{}", fmt::join(roles, ", "));
    facts.special_tokens.push_back(std::move(token));
  }
}

// A tokenizer that Puna can't use is a fact about the file, not the end of the inspection.
void gather_tokenizer(const formats::TokenizerSource& source, ModelFacts& facts) {
  const std::string kind = tokenizer_kind(source);
  const auto tokenizer = model::Tokenizer::load(source);
  if (!tokenizer.ok()) {
    facts.tokenizer = fmt::format("{}; not usable: {}", kind, tokenizer.error().message());
    facts.chat_template = "not looked at without a tokenizer";
    return;
  }
  facts.tokenizer = fmt::format("byte-level BPE ({}), {} tokens", kind, tokenizer->vocab_size());
  const auto chosen = model::ChatTemplate::choose("", *tokenizer);
  facts.chat_template_known = chosen.ok();
  facts.chat_template = chosen.ok() ? std::string(chosen->name()) : chosen.error().message();
  gather_special_tokens(*tokenizer, facts);
}

}  // namespace

Result<ModelFacts> gather_facts(const std::string& path) {
  ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(path));
  ModelFacts facts;
  facts.path = path;
  facts.spec = checkpoint.spec();
  const formats::TokenizerSource source = checkpoint.tokenizer_source();
  if (source.gguf != nullptr) {
    facts.format = source.gguf->shards().size() > 1
                       ? fmt::format("GGUF v3 in {} files", source.gguf->shards().size())
                       : "GGUF v3";
    facts.file_bytes = source.gguf->file_bytes();
    gather_gguf_tensors(*source.gguf, facts);
  } else {
    facts.format = "Hugging Face folder";
    facts.file_bytes = checkpoint.weight_bytes();
    gather_folder_tensors(checkpoint, facts);
  }
  count_tensors(facts);
  facts.kv_bytes_per_token = plan::kv_bytes_per_token([&](const engine::CpuBackendConfig& config) {
    return engine::cpu_backend_bytes(checkpoint, config);
  });
  gather_tokenizer(source, facts);
  return facts;
}

}  // namespace puna::cli
