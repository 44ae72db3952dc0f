// SPDX-License-Identifier: Apache-2.0
#include "model/gguf_metadata.h"

#include <fmt/core.h>

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/gguf.h"
#include "model/tokenizer_parts.h"

namespace puna::model {
namespace {

using formats::Checkpoint;
using formats::GgufWriter;
using formats::ModelSpec;

// tokenizer.ggml.token_type
constexpr int32_t kNormal = 1;
constexpr int32_t kControl = 3;
constexpr int32_t kUserDefined = 4;
constexpr int32_t kUnused = 5;

// Set by the writer itself, or by whoever chooses the types.
bool is_about_the_file(std::string_view key) {
  return key == "general.alignment" || key == "general.file_type" ||
         key == "general.quantization_version" || key.starts_with("split.") ||
         key.starts_with("quantize.");
}

Result<> copy_metadata(const formats::GgufFile& file, GgufWriter& writer) {
  for (const auto& [key, value] : file.metadata()) {
    if (is_about_the_file(key)) continue;
    RETURN_IF_ERROR(writer.set(key, value));
  }
  return Ok{};
}

Result<> set_shape(const ModelSpec& spec, const std::string& name, GgufWriter& writer) {
  const auto count = [&](const char* key, int32_t value) {
    return writer.set(key, static_cast<uint32_t>(value));
  };
  RETURN_IF_ERROR(writer.set("general.architecture", "llama"));
  RETURN_IF_ERROR(writer.set("general.name", name));
  RETURN_IF_ERROR(count("llama.block_count", spec.num_layers));
  RETURN_IF_ERROR(count("llama.context_length", spec.max_position));
  RETURN_IF_ERROR(count("llama.embedding_length", spec.hidden_size));
  RETURN_IF_ERROR(count("llama.feed_forward_length", spec.intermediate_size));
  RETURN_IF_ERROR(count("llama.attention.head_count", spec.num_heads));
  RETURN_IF_ERROR(count("llama.attention.head_count_kv", spec.num_kv_heads));
  RETURN_IF_ERROR(count("llama.attention.key_length", spec.head_dim));
  RETURN_IF_ERROR(count("llama.attention.value_length", spec.head_dim));
  RETURN_IF_ERROR(count("llama.rope.dimension_count", spec.head_dim));
  RETURN_IF_ERROR(count("llama.vocab_size", spec.vocab_size));
  RETURN_IF_ERROR(writer.set("llama.rope.freq_base", static_cast<float>(spec.rope_theta)));
  return writer.set("llama.attention.layer_norm_rms_epsilon", spec.rms_norm_eps);
}

struct TokenTable {
  std::vector<std::string> names;
  std::vector<int32_t> types;
};

// A name that only a token outside the byte alphabet may have is no word for a reader either.
TokenTable token_table(const TokenizerParts& parts, int32_t vocab_size) {
  TokenTable table;
  for (const TokenPart& token : parts.tokens) {
    const bool word = token.is_word && !token.is_added;
    table.names.push_back(word ? spelling_of(token.bytes) : token.bytes);
    int32_t type = word ? kNormal : kUnused;
    if (token.is_added) type = token.is_special ? kControl : kUserDefined;
    table.types.push_back(type);
  }
  // Rows of the embedding without a token.
  for (size_t id = table.names.size(); id < static_cast<size_t>(vocab_size); ++id) {
    table.names.push_back(fmt::format("[PAD{}]", id));
    table.types.push_back(kUnused);
  }
  return table;
}

Result<> set_strings(const char* key, const std::vector<std::string>& strings, GgufWriter& writer) {
  const std::vector<std::string_view> views(strings.begin(), strings.end());
  return writer.set_array(key, std::span<const std::string_view>(views));
}

Result<> set_token_ids(const ModelSpec& spec, const TokenizerParts& parts, GgufWriter& writer) {
  if (parts.bos) {
    RETURN_IF_ERROR(writer.set("tokenizer.ggml.bos_token_id", static_cast<uint32_t>(*parts.bos)));
  }
  std::vector<int32_t> ends;
  if (parts.eos) ends.push_back(*parts.eos);
  for (const int32_t id : spec.eos_token_ids) {
    if (std::find(ends.begin(), ends.end(), id) == ends.end()) ends.push_back(id);
  }
  constexpr const char* kKeys[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                   "tokenizer.ggml.eom_token_id"};
  for (size_t i = 0; i < ends.size() && i < std::size(kKeys); ++i) {
    RETURN_IF_ERROR(writer.set(kKeys[i], static_cast<uint32_t>(ends[i])));
  }
  return writer.set("tokenizer.ggml.add_bos_token", parts.adds_bos);
}

Result<> set_tokenizer(const ModelSpec& spec, const std::string& folder, GgufWriter& writer) {
  ASSIGN_OR_RETURN(const TokenizerParts parts, read_tokenizer_folder(folder));
  if (parts.merges_by_id) {
    return Error(ErrorCode::kUnsupported,
                 "{}: its tokenizer is a tokenizer.model, which GGUF has no words for; put the "
                 "model's tokenizer.json into the folder",
                 folder);
  }
  if (parts.tokens.size() > static_cast<size_t>(spec.vocab_size)) {
    return Error(ErrorCode::kCorrupt, "{}: the tokenizer has {} tokens, the model {}", folder,
                 parts.tokens.size(), spec.vocab_size);
  }
  RETURN_IF_ERROR(writer.set("tokenizer.ggml.model", "gpt2"));
  RETURN_IF_ERROR(writer.set("tokenizer.ggml.pre", pretokenizer_name(parts.pretokenizer)));
  const TokenTable table = token_table(parts, spec.vocab_size);
  RETURN_IF_ERROR(set_strings("tokenizer.ggml.tokens", table.names, writer));
  RETURN_IF_ERROR(
      writer.set_array("tokenizer.ggml.token_type", std::span<const int32_t>(table.types)));
  std::vector<std::string> merges;
  merges.reserve(parts.merges.size());
  for (const MergePart& merge : parts.merges) {
    const auto name = [&](TokenId id) {
      return spelling_of(parts.tokens[static_cast<size_t>(id)].bytes);
    };
    merges.push_back(name(merge.left) + " " + name(merge.right));
  }
  RETURN_IF_ERROR(set_strings("tokenizer.ggml.merges", merges, writer));
  RETURN_IF_ERROR(set_token_ids(spec, parts, writer));
  if (parts.chat_template.empty()) return Ok{};
  return writer.set("tokenizer.chat_template", parts.chat_template);
}

std::string folder_name(const std::string& folder) {
  const std::filesystem::path path = std::filesystem::path(folder) / "";
  return path.parent_path().filename().string();
}

}  // namespace

Result<> set_gguf_metadata(const Checkpoint& checkpoint, GgufWriter& writer) {
  const formats::TokenizerSource source = checkpoint.tokenizer_source();
  if (source.gguf != nullptr) return copy_metadata(*source.gguf, writer);
  const ModelSpec& spec = checkpoint.spec();
  RETURN_IF_ERROR(set_shape(spec, folder_name(source.folder), writer));
  return set_tokenizer(spec, source.folder, writer);
}

}  // namespace puna::model
