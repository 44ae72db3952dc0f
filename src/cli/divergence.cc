// SPDX-License-Identifier: Apache-2.0
// `puna divergence`: chunks as llama-perplexity takes them, so that numbers compare: `context`
// tokens each, scored from the middle on; the first token is BOS where the model expects one.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <utility>
#include <vector>

#include "base/mapped_file.h"
#include "check/divergence.h"
#include "check/twin_models.h"
#include "cli/commands.h"
#include "cli/model_pair.h"
#include "cli/work_progress.h"

namespace puna::cli {
namespace {

Result<std::vector<model::TokenId>> text_tokens(const DivergenceFlags& flags,
                                                const model::Tokenizer& tokenizer) {
  auto file = MappedFile::open(flags.text);
  if (!file.ok()) return std::move(file).error().with_context("--text");
  const std::string_view text(reinterpret_cast<const char*>(file->bytes().data()), file->size());
  std::vector<model::TokenId> tokens =
      tokenizer.encode(text, {.add_bos = tokenizer.adds_bos(), .parse_special = false});
  if (tokens.size() >= static_cast<size_t>(flags.context)) return tokens;
  return Error(ErrorCode::kInvalidArgument,
               "--text {}: {} tokens are no chunk of {} (--context): use a longer text or shorter "
               "chunks",
               flags.text, tokens.size(), flags.context);
}

}  // namespace

Result<int> divergence(const DivergenceFlags& flags) {
  ASSIGN_OR_RETURN(const ModelPair pair, ModelPair::open(flags.pair, false));
  if (flags.context > pair.base->spec().max_position) {
    return Error(ErrorCode::kInvalidArgument, "--context {}: the model was trained for {}",
                 flags.context, pair.base->spec().max_position);
  }
  ASSIGN_OR_RETURN(const std::vector<model::TokenId> tokens, text_tokens(flags, *pair.tokenizer));
  ASSIGN_OR_RETURN(check::TwinModels twins,
                   check::TwinModels::create(*pair.base->checkpoint(), *pair.variant->checkpoint(),
                                             twin_config(flags.pair, flags.context)));
  const auto context = static_cast<size_t>(flags.context);
  size_t chunks = tokens.size() / context;
  if (flags.chunks > 0) chunks = std::min(chunks, static_cast<size_t>(flags.chunks));
  std::vector<check::TokenDivergence> compared;
  WorkProgress progress(stderr);
  for (size_t chunk = 0; chunk < chunks; ++chunk) {
    std::vector<model::TokenId> piece(
        tokens.begin() + static_cast<ptrdiff_t>(chunk * context),
        tokens.begin() + static_cast<ptrdiff_t>((chunk + 1) * context));
    if (pair.tokenizer->adds_bos() && pair.tokenizer->bos()) piece[0] = *pair.tokenizer->bos();
    RETURN_IF_ERROR(twins.measure(piece, context / 2, compared));
    progress.update(static_cast<int64_t>(chunk + 1), static_cast<int64_t>(chunks), "chunks");
  }
  progress.finish();
  const check::Divergence summary = check::summarise(compared);
  fmt::print(
      "{}", flags.json ? check::divergence_json(summary) + "\n" : check::divergence_table(summary));
  return 0;
}

}  // namespace puna::cli
