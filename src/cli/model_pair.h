// SPDX-License-Identifier: Apache-2.0
// Two forms of one model, opened and found to belong together. Main thread.
//
//   ASSIGN_OR_RETURN(ModelPair pair, ModelPair::open(flags.pair, /*needs_chat_template=*/true));
#pragma once

#include <optional>

#include "base/result.h"
#include "check/twin_models.h"
#include "cli/flags.h"
#include "cli/model_source.h"
#include "model/chat_template.h"
#include "model/tokenizer.h"

namespace puna::cli {

struct ModelPair {
  std::optional<ModelSource> base;
  std::optional<ModelSource> variant;
  std::optional<model::Tokenizer> tokenizer;  // of both: the vocabularies are equal
  std::optional<model::ChatTemplate> chat_template;

  // Errors name --base or --variant; kInvalidArgument for another architecture, shape, vocabulary
  // or chat template.
  static Result<ModelPair> open(const PairFlags& flags, bool needs_chat_template);
};

// Errors: kInvalidArgument with the first token that differs.
Result<> check_same_vocabulary(const model::Tokenizer& base, const model::Tokenizer& variant);

// How the flags want the two computed in lock-step.
check::TwinConfig twin_config(const PairFlags& flags, int32_t max_tokens);

}  // namespace puna::cli
