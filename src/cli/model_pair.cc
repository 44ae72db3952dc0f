// SPDX-License-Identifier: Apache-2.0
#include "cli/model_pair.h"

#include <utility>

namespace puna::cli {
namespace {

struct Opened {
  ModelSource source;
  model::Tokenizer tokenizer;
};

Result<Opened> open_one(const ModelFlags& flags, std::string_view flag) {
  // ModelSource's messages begin with --model, which is no flag here.
  auto checkpoint = formats::Checkpoint::open(flags.model);
  if (!checkpoint.ok()) return std::move(checkpoint).error().with_context(flag);
  ASSIGN_OR_RETURN(ModelSource source, ModelSource::open(flags));
  auto tokenizer = source.load_tokenizer(flags);
  if (!tokenizer.ok()) return std::move(tokenizer).error().with_context(flag);
  return Opened{std::move(source), std::move(*tokenizer->tokenizer)};
}

}  // namespace

Result<> check_same_vocabulary(const model::Tokenizer& base, const model::Tokenizer& variant) {
  if (base.vocab_size() != variant.vocab_size()) {
    return Error(ErrorCode::kInvalidArgument,
                 "the vocabularies differ: the base has {} tokens, the variant {}",
                 base.vocab_size(), variant.vocab_size());
  }
  for (model::TokenId id = 0; id < base.vocab_size(); ++id) {
    if (base.token_bytes(id) == variant.token_bytes(id)) continue;
    return Error(
        ErrorCode::kInvalidArgument,
        "the vocabularies differ: token {} is \"{}\" in the base and \"{}\" in the variant", id,
        base.token_bytes(id), variant.token_bytes(id));
  }
  return Ok{};
}

check::TwinConfig twin_config(const PairFlags& flags, int32_t max_tokens) {
  return {.max_tokens = max_tokens,
          .threads = flags.model.threads,
          .isa = flags.model.isa,
          .activations = flags.model.activations,
          .base_kv = flags.of_base().kv_type(),
          .variant_kv = flags.of_variant().kv_type()};
}

Result<ModelPair> ModelPair::open(const PairFlags& flags, bool needs_chat_template) {
  ASSIGN_OR_RETURN(Opened base, open_one(flags.of_base(), "--base"));
  ASSIGN_OR_RETURN(Opened variant, open_one(flags.of_variant(), "--variant"));
  RETURN_IF_ERROR(check::check_same_shape(base.source.spec(), variant.source.spec()));
  RETURN_IF_ERROR(check_same_vocabulary(base.tokenizer, variant.tokenizer));
  ModelPair pair;
  if (needs_chat_template) {
    const std::string& name = flags.model.chat_template;
    auto chosen = model::ChatTemplate::choose(name, base.tokenizer);
    if (!chosen.ok()) return std::move(chosen).error().with_context("--base");
    auto other = model::ChatTemplate::choose(name, variant.tokenizer);
    if (!other.ok()) return std::move(other).error().with_context("--variant");
    if (chosen->name() != other->name()) {
      return Error(ErrorCode::kInvalidArgument,
                   "the base's chat template is {}, the variant's {}: choose with --chat-template",
                   chosen->name(), other->name());
    }
    pair.chat_template.emplace(std::move(chosen).value());
  }
  pair.base.emplace(std::move(base.source));
  pair.variant.emplace(std::move(variant.source));
  pair.tokenizer.emplace(std::move(base.tokenizer));
  return pair;
}

}  // namespace puna::cli
