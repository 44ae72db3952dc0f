// SPDX-License-Identifier: Apache-2.0
#include "cli/model_source.h"

#include <charconv>
#include <filesystem>
#include <string_view>
#include <utility>

#include "formats/gguf.h"
#include "formats/known_specs.h"
#include "model/stand_in_tokenizer.h"

namespace puna::cli {

std::optional<int32_t> cuda_ordinal(const ModelFlags& flags) {
  std::string_view device = flags.device;
  if (!device.starts_with("cuda")) return std::nullopt;
  device.remove_prefix(std::string_view("cuda").size());
  int32_t ordinal = 0;
  if (device.starts_with(':'))
    std::from_chars(device.data() + 1, device.data() + device.size(), ordinal);
  return ordinal;
}

Result<ModelSource> ModelSource::open(const ModelFlags& flags) {
  ModelSource source;
  if (flags.random_weights.empty()) {
    auto checkpoint = formats::Checkpoint::open(flags.model);
    if (!checkpoint.ok()) return std::move(checkpoint).error().with_context("--model");
    source.checkpoint_.emplace(std::move(checkpoint).value());
    return source;
  }
  auto spec = formats::known_spec(flags.random_weights);
  if (!spec.ok()) return std::move(spec).error().with_context("--random-weights");
  source.spec_ = std::move(spec).value();
  return source;
}

std::string ModelSource::type_summary() const {
  return checkpoint_ ? std::string(checkpoint_->type_summary()) : "random bf16";
}

// FNV-1a over what tells two files apart.
uint64_t ModelSource::digest() const {
  const std::string text =
      checkpoint_ ? checkpoint_->path() + "/" + std::to_string(checkpoint_->weight_bytes())
                  : "random/" + spec_.name;
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  return hash;
}

Result<model::Tokenizer> ModelSource::tokenizer(const ModelFlags& flags) const {
  const auto load = [&]() -> Result<model::Tokenizer> {
    if (checkpoint_) return model::Tokenizer::load(checkpoint_->tokenizer_source());
    if (flags.tokenizer.empty()) return model::stand_in_tokenizer();
    if (std::filesystem::is_directory(flags.tokenizer))
      return model::Tokenizer::load({.folder = flags.tokenizer});
    ASSIGN_OR_RETURN(const formats::GgufFile file, formats::GgufFile::open(flags.tokenizer));
    return model::Tokenizer::from_gguf(file);
  };
  auto tokenizer = load();
  if (tokenizer.ok()) return tokenizer;
  const std::string flag = checkpoint_ ? "--model " + flags.model : "--tokenizer";
  return std::move(tokenizer).error().with_context(flag);
}

}  // namespace puna::cli
