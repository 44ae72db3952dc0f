// SPDX-License-Identifier: Apache-2.0
// `puna check`: opens both models, screens them in lock-step, loads both engines, and lets check/
// ask and judge.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <utility>

#include "base/whole_file.h"
#include "check/certificate.h"
#include "check/check_run.h"
#include "check/report.h"
#include "check/signing_key.h"
#include "check/weights_hash.h"
#include "cli/commands.h"
#include "cli/engine_answerer.h"
#include "cli/loaded_model.h"
#include "cli/model_pair.h"
#include "cli/version.h"
#include "cli/work_progress.h"
#include "kernels/cpu/isa.h"

namespace puna::cli {
namespace {

namespace fs = std::filesystem;

// Enough predicted tokens of a family for a mean divergence; items beyond them aren't read.
constexpr size_t kScreenTokens = 1500;

check::CheckConfig check_config(const CheckFlags& flags) {
  check::CheckConfig config;
  config.gate.delta = flags.delta / 100;
  if (flags.no_early_end) config.gate.early_error = 0;
  config.screen = {.mean_kld = flags.screen_kld, .same_top = flags.screen_same_top / 100};
  config.together = flags.batch;
  config.control_together = flags.batch == 5 ? 4 : 5;  // another size than the first run's
  config.control_items = flags.control_items;
  return config;
}

std::vector<check::Family> families_of(const CheckFlags& flags) {
  std::vector<check::Family> families;
  for (const std::string& name : flags.families) {
    const check::Family family = *check::family_named(name);  // as finish_check() made sure
    if (std::find(families.begin(), families.end(), family) == families.end()) {
      families.push_back(family);
    }
  }
  const bool own_items = !flags.gsm8k.empty() || !flags.human_eval.empty();
  if (!families.empty() || own_items) return families;
  for (int i = 0; i < check::kNumFamilies; ++i) {
    const auto family = static_cast<check::Family>(i);
    if (family != check::Family::kOpenChat) families.push_back(family);
  }
  return families;
}

// Of each family.
int32_t items_of(const CheckFlags& flags, const check::GateConfig& gate) {
  if (flags.items > 0) return flags.items;
  return static_cast<int32_t>(std::min<int64_t>(check::planned_items(gate), kMaxItems));
}

Result<std::vector<check::Suite>> suites_of(const CheckFlags& flags,
                                            const check::GateConfig& gate) {
  const int32_t planned = items_of(flags, gate);
  std::vector<check::Suite> suites = check::generated_suites(
      families_of(flags), {.seed = flags.seed, .items = planned, .difficulty = flags.difficulty});
  const auto most = static_cast<size_t>(planned);
  const auto add = [&](std::string name, check::Family family, std::vector<check::Item> items) {
    if (items.size() > most) items.resize(most);
    suites.push_back({std::move(name), family, std::move(items), {}});
  };
  if (!flags.gsm8k.empty()) {
    ASSIGN_OR_RETURN(auto items, check::read_gsm8k(flags.gsm8k));
    add("gsm8k", check::Family::kArithmetic, std::move(items));
  }
  if (!flags.human_eval.empty()) {
    ASSIGN_OR_RETURN(auto items, check::read_human_eval(flags.human_eval));
    add("human_eval", check::Family::kCode, std::move(items));
  }
  return suites;
}

// Before minutes of work: could any verdict come of it?
Result<> check_items(std::span<const check::Suite> suites, const check::CheckConfig& config) {
  const int64_t fewest = check::fewest_items(config.gate);
  for (const check::Suite& suite : suites) {
    const auto items = static_cast<int64_t>(suite.items.size());
    if (items >= fewest || suite.family == check::Family::kOpenChat) continue;
    return Error(ErrorCode::kInvalidArgument,
                 "{}: {} items can't certify anything: with --delta {:g} even a variant that never "
                 "differs needs {} (--items)",
                 suite.name, items, 100 * config.gate.delta, fewest);
  }
  return Ok{};
}

// What goes into the report's folder, tried before it is needed.
Result<> prepare_folder(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) return Error(ErrorCode::kIo, "--report {}: {}", path, error.message());
  if (::access(path.c_str(), W_OK) == 0) return Ok{};
  return Error(ErrorCode::kIo, "--report {}: the folder can't be written to", path);
}

Result<std::string> key_path(const CheckFlags& flags) {
  if (!flags.key.empty()) return flags.key;
  return check::SigningKey::default_path();
}

Result<> verify_file(std::string_view flag, const std::string& path, const std::string& hash) {
  if (path.empty()) return Ok{};
  auto found = check::weights_hash(path);
  if (!found.ok()) return std::move(found).error().with_context(flag);
  if (*found == hash) return Ok{};
  return Error(ErrorCode::kInvalidArgument,
               "{} {}: the certificate is of another file: {}… not {}…", flag, path,
               hash.substr(0, 12), found->substr(0, 12));
}

Result<int> verify_certificate(const CheckFlags& flags) {
  ASSIGN_OR_RETURN(const std::string path, key_path(flags));
  auto key = check::SigningKey::load(path);
  if (!key.ok()) return std::move(key).error().with_context("--key");
  ASSIGN_OR_RETURN(const check::Certificate certificate, check::read_certificate(flags.verify));
  if (auto valid = check::verify(certificate, *key); !valid.ok()) {
    return std::move(valid).error().with_context(flags.verify);
  }
  RETURN_IF_ERROR(verify_file("--base", flags.pair.model.model, certificate.base_hash));
  RETURN_IF_ERROR(verify_file("--variant", flags.pair.variant, certificate.variant_hash));
  fmt::print("valid: {} against {}, build {}, KV {}\n", certificate.variant, certificate.base,
             certificate.build, certificate.kv_dtype);
  for (const check::FamilyCertificate& family : certificate.families) {
    fmt::print("  {:<13}{}\n", family.name, check::verdict_text(family.verdict, family.degraded));
  }
  return 0;
}

class Check {
 public:
  explicit Check(const CheckFlags& flags) : flags_(flags), config_(check_config(flags)) {}
  Result<int> run();

 private:
  Result<> prepare();
  Result<int32_t> longest_item();
  Result<check::Screen> screen(const check::Suite& suite);
  Result<check::CheckResult> ask(int32_t context);
  LoadSize size_for(int32_t context) const;
  Result<check::Certificate> certificate(const check::CheckResult& result) const;
  Result<> write(const check::Certificate& certificate, const check::CheckResult& result) const;

  const CheckFlags& flags_;
  const check::CheckConfig config_;
  std::vector<check::Suite> suites_;
  std::optional<check::SigningKey> key_;  // when something is signed
  std::optional<ModelPair> pair_;
  std::optional<check::TwinModels> twins_;
};

Result<> Check::prepare() {
  ASSIGN_OR_RETURN(suites_, suites_of(flags_, config_.gate));
  RETURN_IF_ERROR(check_items(suites_, config_));
  if (!flags_.report.empty()) RETURN_IF_ERROR(prepare_folder(flags_.report));
  if (!flags_.report.empty() || flags_.json) {
    ASSIGN_OR_RETURN(const std::string path, key_path(flags_));
    auto key = check::SigningKey::load_or_create(path);
    if (!key.ok()) return std::move(key).error().with_context("--key");
    key_.emplace(std::move(key).value());
  }
  ASSIGN_OR_RETURN(ModelPair pair, ModelPair::open(flags_.pair, /*needs_chat_template=*/true));
  pair_.emplace(std::move(pair));
  return Ok{};
}

// Tokens of the longest prompt and answer; a suite that is too long for the model gets an obstacle.
Result<int32_t> Check::longest_item() {
  const int32_t context = pair_->base->spec().max_position;
  int32_t longest = 0;
  for (check::Suite& suite : suites_) {
    int32_t needed = 0;
    for (const check::Item& item : suite.items) {
      ASSIGN_OR_RETURN(const std::vector<model::TokenId> prompt,
                       item_prompt(item, *pair_->chat_template, *pair_->tokenizer));
      needed = std::max(needed, static_cast<int32_t>(prompt.size()) + item.max_tokens);
    }
    if (needed <= context) {
      longest = std::max(longest, needed);
      continue;
    }
    suite.obstacle =
        fmt::format("an item takes {} tokens, the model was trained for {}: lower --difficulty",
                    needed, context);
  }
  return longest;
}

// Teacher-forced on right answers: what the family's own text says about the two models.
Result<check::Screen> Check::screen(const check::Suite& suite) {
  std::vector<check::TokenDivergence> compared;
  for (const check::Item& item : suite.items) {
    if (compared.size() >= kScreenTokens) break;
    ASSIGN_OR_RETURN(std::vector<model::TokenId> tokens,
                     item_prompt(item, *pair_->chat_template, *pair_->tokenizer));
    const size_t prompt = tokens.size();
    const std::vector<model::TokenId> answer = pair_->tokenizer->encode(item.oracle);
    const size_t room = static_cast<size_t>(std::max(item.max_tokens, 0));
    tokens.insert(tokens.end(), answer.begin(),
                  answer.begin() + static_cast<ptrdiff_t>(std::min(room, answer.size())));
    if (tokens.size() == prompt) continue;
    RETURN_IF_ERROR(twins_->measure(tokens, prompt - 1, compared));
  }
  const check::Divergence of = check::summarise(compared);
  return check::Screen{.mean_kld = of.tokens > 0 ? of.kld.value : -1,
                       .same_top = of.tokens > 0 ? of.same_top.value : -1,
                       .tokens = of.tokens};
}

LoadSize Check::size_for(int32_t context) const {
  LoadSize size;
  size.server = true;  // room for many requests at once
  size.max_num_seqs = flags_.batch;
  size.max_queued_requests = flags_.batch;
  size.max_queued_tokens = int64_t{flags_.batch} * context;
  size.max_model_len = context;
  size.chunk_sizing = false;
  for (engine::ClassPolicy& policy : size.classes) {
    policy.max_queue_time_ns = 0;
    policy.max_queued_tokens = size.max_queued_tokens;
  }
  return size;
}

Result<check::CheckResult> Check::ask(int32_t context) {
  check::CheckHooks hooks;
  WorkProgress progress(stderr);
  hooks.progress = [&](int64_t done, int64_t planned, const std::string& doing) {
    progress.update(done, planned, doing);
  };
  // A GPU's logits stay there: no screen.
  if (!flags_.no_screen && !cuda_ordinal(flags_.pair.model.device)) {
    ASSIGN_OR_RETURN(
        twins_, check::TwinModels::create(*pair_->base->checkpoint(), *pair_->variant->checkpoint(),
                                          twin_config(flags_.pair, context)));
    hooks.screen = [this](const check::Suite& suite) { return screen(suite); };
  }
  ASSIGN_OR_RETURN(std::vector<check::FamilyReport> screened,
                   check::screen_suites(suites_, config_, hooks));
  twins_.reset();  // before the engines take their memory
  pair_->base.reset();
  pair_->variant.reset();
  progress.finish();
  auto base = LoadedModel::load(flags_.pair.of_base(), size_for(context));
  if (!base.ok()) return std::move(base).error().with_context("--base");
  auto variant = LoadedModel::load(flags_.pair.of_variant(), size_for(context));
  if (!variant.ok()) return std::move(variant).error().with_context("--variant");
  base->engine().start();
  variant->engine().start();
  EngineAnswerer base_answerer(*base);
  EngineAnswerer variant_answerer(*variant);
  return check::run_check(suites_, std::move(screened), config_, base_answerer, variant_answerer,
                          hooks);
}

Result<check::Certificate> Check::certificate(const check::CheckResult& result) const {
  check::Certificate head;
  const ModelFlags& model = flags_.pair.model;
  const bool gpu = cuda_ordinal(model.device).has_value();
  head.base = fs::path(model.model).lexically_normal().filename().string();
  head.variant = fs::path(flags_.pair.variant).lexically_normal().filename().string();
  ASSIGN_OR_RETURN(head.base_hash, check::weights_hash(model.model));
  ASSIGN_OR_RETURN(head.variant_hash, check::weights_hash(flags_.pair.variant));
  head.build = kVersion;
  head.device = gpu ? "cuda" : "cpu";
  if (!gpu) head.isa = model.isa.empty() ? kernels::available_isas().back() : model.isa;
  head.kv_dtype = gpu ? "f16" : plan::kv_type_name(flags_.pair.of_variant().kv_type());
  head.base_kv_dtype = gpu ? "f16" : plan::kv_type_name(flags_.pair.of_base().kv_type());
  head.activations = gpu ? "f16" : kernels::name(model.activations);
  head.template_name = pair_->chat_template->name();
  head.seed = flags_.seed;
  head.difficulty = flags_.difficulty;
  head.delta = config_.gate.delta;
  head.error = config_.gate.error;
  head.early_error = config_.gate.early_error;
  check::Certificate whole = check::certificate_of(std::move(head), result);
  if (key_) check::sign(whole, *key_);
  return whole;
}

Result<> Check::write(const check::Certificate& certificate,
                      const check::CheckResult& result) const {
  if (!flags_.report.empty()) {
    const fs::path folder(flags_.report);
    RETURN_IF_ERROR(write_whole_file((folder / "report.html").string(),
                                     check::report_html(certificate, result)));
    RETURN_IF_ERROR(write_whole_file((folder / "certificate.json").string(),
                                     check::certificate_json(certificate)));
  }
  fmt::print("{}", flags_.json ? check::certificate_json(certificate)
                               : check::report_table(certificate, result));
  return Ok{};
}

Result<int> Check::run() {
  RETURN_IF_ERROR(prepare());
  ASSIGN_OR_RETURN(const int32_t context, longest_item());
  ASSIGN_OR_RETURN(const check::CheckResult result, ask(std::max(context, 2)));
  ASSIGN_OR_RETURN(const check::Certificate signed_certificate, certificate(result));
  RETURN_IF_ERROR(write(signed_certificate, result));
  return static_cast<int>(check::outcome_of(result));
}

}  // namespace

Result<int> check_command(const CheckFlags& flags) {
  return flags.verify.empty() ? Check(flags).run() : verify_certificate(flags);
}

}  // namespace puna::cli
