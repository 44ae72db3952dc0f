// SPDX-License-Identifier: Apache-2.0
#include "cli/model_source.h"

#include <malloc.h>

#include <filesystem>
#include <string_view>
#include <utility>

#include "base/hash.h"
#include "formats/gguf.h"
#include "formats/known_specs.h"
#include "model/stand_in_tokenizer.h"
#include "plan/system_memory.h"

namespace puna::cli {

namespace {

Result<model::Tokenizer> tokenizer_for_random_weights(const std::string& path) {
  if (path.empty()) return model::stand_in_tokenizer();
  if (std::filesystem::is_directory(path)) return model::Tokenizer::load({.folder = path});
  ASSIGN_OR_RETURN(const formats::GgufFile file, formats::GgufFile::open(path));
  return model::Tokenizer::from_gguf(file);
}

template <typename Load>
Result<MeasuredTokenizer> measured(Load load) {
  const uint64_t before = plan::heap_bytes();
  ASSIGN_OR_RETURN(model::Tokenizer tokenizer, load());
  const uint64_t after = plan::heap_bytes();
  return MeasuredTokenizer{.tokenizer = std::move(tokenizer),
                           .bytes = after > before ? after - before : 0};
}

}  // namespace

Result<MeasuredTokenizer> load_tokenizer(formats::Checkpoint& checkpoint) {
  auto tokenizer = measured([&] { return model::Tokenizer::load(checkpoint.tokenizer_source()); });
  if (!tokenizer.ok()) {
    return std::move(tokenizer).error().with_context("--model " + checkpoint.path());
  }
  checkpoint.forget_tokenizer();
  ::malloc_trim(0);  // what was needed only to build it
  return tokenizer;
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

// Of what tells two files apart.
uint64_t ModelSource::digest() const {
  const std::string text =
      checkpoint_ ? checkpoint_->path() + "/" + std::to_string(checkpoint_->weight_bytes())
                  : "random/" + spec_.name;
  return fnv1a(text);
}

Result<MeasuredTokenizer> ModelSource::load_tokenizer(const ModelFlags& flags) {
  if (checkpoint_) return cli::load_tokenizer(*checkpoint_);
  auto tokenizer = measured([&] { return tokenizer_for_random_weights(flags.tokenizer); });
  if (!tokenizer.ok()) return std::move(tokenizer).error().with_context("--tokenizer");
  const int32_t tokens = tokenizer->tokenizer->vocab_size();
  if (tokens > spec_.vocab_size) {
    return Error(ErrorCode::kInvalidArgument,
                 "--tokenizer: {} has {} tokens, but {} has {}: name another",
                 flags.tokenizer.empty() ? "the stand-in" : flags.tokenizer, tokens, spec_.name,
                 spec_.vocab_size);
  }
  ::malloc_trim(0);
  return tokenizer;
}

void ModelSource::drop_pages() const {
  if (checkpoint_) checkpoint_->drop_all_pages();
}

}  // namespace puna::cli
