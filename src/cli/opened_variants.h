// SPDX-License-Identifier: Apache-2.0
// The variants of a model with their files open and their certificates checked, before anything is
// loaded: what `serve` begins with, and all that `route explain` needs. Main thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "cli/flags.h"
#include "cli/model_source.h"
#include "cli/models_file.h"
#include "model/chat_template.h"
#include "model/tokenizer.h"
#include "route/policy.h"

namespace puna::cli {

struct OpenedVariants {
  size_t base = 0;  // index
  std::vector<VariantConfig> configs;
  std::vector<ModelFlags> flags;      // as of a server with this variant alone
  std::vector<ModelSource> sources;   // without their tokenizers
  std::vector<route::Variant> facts;  // what the routing knows
  // Of all.
  std::optional<model::Tokenizer> tokenizer;
  uint64_t tokenizer_bytes = 0;
  std::optional<model::ChatTemplate> chat_template;
};

// `common`: flags that count for every variant. Errors, each naming file, line and variant: files
// that can't be opened, a variant of another shape, vocabulary or template than the base, a
// certificate that was changed, is signed with another key, or is of another file, build, KV type,
// activations or template.
Result<OpenedVariants> open_variants(const ModelConfig& config, const ModelFlags& common);

}  // namespace puna::cli
