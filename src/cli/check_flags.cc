// SPDX-License-Identifier: Apache-2.0
#include "cli/check_flags.h"

#include "check/families/family.h"
#include "cli/flag_kinds.h"

namespace puna::cli {
namespace {

void add_pair_flags(CLI::App& app, PairFlags& flags) {
  app.add_option("--base,base", flags.model.model);
  app.add_option("--variant,variant", flags.variant);
  add_kv_dtype(app, "--base-kv-dtype", flags.base_kv_dtype);
  add_compute_flags(app, flags.model);
}

Result<> finish_pair(const PairFlags& flags) {
  RETURN_IF_ERROR(check_isa(flags.model));
  if (!flags.model.model.empty() && !flags.variant.empty()) return Ok{};
  return Error(ErrorCode::kInvalidArgument,
               "{} is missing: name a GGUF file or a Hugging Face folder",
               flags.model.model.empty() ? "--base" : "--variant");
}

}  // namespace

ModelFlags PairFlags::of_base() const {
  ModelFlags flags = model;
  flags.kv_dtype = base_kv_dtype;
  return flags;
}

ModelFlags PairFlags::of_variant() const {
  ModelFlags flags = model;
  flags.model = variant;
  return flags;
}

void add_check_flags(CLI::App& app, CheckFlags& flags) {
  add_pair_flags(app, flags.pair);
  app.add_option("--families", flags.families)->delimiter(',')->allow_extra_args(false);
  app.add_option("--gsm8k", flags.gsm8k);
  app.add_option("--human-eval", flags.human_eval);
  add_number<double>(app, "--delta", flags.delta, 0.1, 50);
  add_number<int32_t>(app, "--items", flags.items, 1, kMaxItems);
  add_number<int32_t>(app, "--difficulty", flags.difficulty, 0, check::kMaxDifficulty);
  add_number<uint64_t>(app, "--seed", flags.seed, 0, check::kTrainingSeedBit - 1);
  app.add_flag("--no-early-end", flags.no_early_end);
  app.add_flag("--no-screen", flags.no_screen);
  add_number<double>(app, "--screen-kld", flags.screen_kld, 0, 100);
  add_number<double>(app, "--screen-same-top", flags.screen_same_top, 0, 100);
  add_number<int32_t>(app, "--control-items", flags.control_items, 0, kMaxItems);
  add_number<int32_t>(app, "--batch", flags.batch, 1, kMaxSequences);
  CLI::Option* report = app.add_option("--report", flags.report);
  app.add_option("--verify", flags.verify)->excludes(report);
  app.add_option("--key", flags.key);
  app.add_flag("--json", flags.json);
  app.add_option("--chat-template", flags.pair.model.chat_template)
      ->check(CLI::IsMember({"llama3", "llama3.1", "llama3.2", "llama3.3", "chatml"}));
  add_device(app, flags.pair.model);
  app.add_option("--memory-budget", flags.pair.model.memory_budget);
}

void add_divergence_flags(CLI::App& app, DivergenceFlags& flags) {
  add_pair_flags(app, flags.pair);
  app.add_option("--text", flags.text);
  add_number<int32_t>(app, "--context", flags.context, 4, kMaxContext);
  add_number<int32_t>(app, "--chunks", flags.chunks, 1, kMaxContext);
  app.add_flag("--json", flags.json);
}

Result<> finish_check(const CheckFlags& flags) {
  if (!flags.verify.empty()) return Ok{};
  RETURN_IF_ERROR(finish_pair(flags.pair));
  RETURN_IF_ERROR(check_gpu_flags(flags.pair.model));
  for (const std::string& name : flags.families) {
    if (check::family_named(name)) continue;
    std::string known;
    for (int family = 0; family < check::kNumFamilies; ++family) {
      known += family > 0 ? ", " : "";
      known += check::name(static_cast<check::Family>(family));
    }
    return Error(ErrorCode::kInvalidArgument, "--families: there is no \"{}\"; there are {}", name,
                 known);
  }
  return Ok{};
}

Result<> finish_divergence(const DivergenceFlags& flags) {
  RETURN_IF_ERROR(finish_pair(flags.pair));
  if (!flags.text.empty()) return Ok{};
  return Error(ErrorCode::kInvalidArgument, "--text is missing: name a file with text");
}

}  // namespace puna::cli
