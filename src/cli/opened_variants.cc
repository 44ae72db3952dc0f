// SPDX-License-Identifier: Apache-2.0
#include "cli/opened_variants.h"

#include <algorithm>
#include <map>
#include <utility>

#include "check/certificate.h"
#include "check/signing_key.h"
#include "check/twin_models.h"
#include "check/weights_hash.h"
#include "cli/version.h"
#include "engine/cpu_backend.h"
#include "plan/memory_model.h"

namespace puna::cli {
namespace {

// A usual context: what of the KV pool a token of an answer reads, beside all weights.
constexpr uint64_t kUsualContext = 1024;

Error at(const VariantConfig& variant, std::string_view what) {
  return Error(ErrorCode::kInvalidArgument, "{} \"{}\": {}", variant.where, variant.name, what);
}

// What a source says of its flag: here the file has another name for it.
Error at(const VariantConfig& variant, const Error& error) {
  constexpr std::string_view kFlag = "--model: ";
  const std::string_view message = error.message();
  return at(variant, message.starts_with(kFlag) ? message.substr(kFlag.size()) : message);
}

// A request is tokenised once, by the base's tokenizer, whichever variant answers it: the ids must
// mean the same, and the chat be laid out as the variant knows it.
Result<> check_same_text(const OpenedVariants& opened, const model::Tokenizer& other,
                         std::string_view template_name) {
  const model::Tokenizer& base = *opened.tokenizer;
  const auto differs = [](std::string_view what) {
    return Error(ErrorCode::kInvalidArgument, "it has another vocabulary than the base: {}", what);
  };
  if (base.vocab_size() != other.vocab_size()) {
    return differs(fmt::format("{} tokens, not {}", other.vocab_size(), base.vocab_size()));
  }
  for (model::TokenId id = 0; id < base.vocab_size(); ++id) {
    if (base.token_bytes(id) != other.token_bytes(id)) return differs(fmt::format("token {}", id));
  }
  ASSIGN_OR_RETURN(const model::ChatTemplate chosen,
                   model::ChatTemplate::choose(template_name, other));
  // Without a system message, templates of one name may still differ.
  const std::vector<model::ChatMessage> chat = {{.role = "user", .content = "x"}};
  const auto ours = opened.chat_template->render(chat, true, "1 Jan 2024");
  const auto theirs = chosen.render(chat, true, "1 Jan 2024");
  if (ours.ok() && theirs.ok() && *ours == *theirs) return Ok{};
  return Error(
      ErrorCode::kInvalidArgument,
      "its chat template is {}, which lays out another text than the base's {}: choose one "
      "with chat-template",
      chosen.name(), opened.chat_template->name());
}

uint64_t cost_of(const ModelSource& source, const ModelFlags& flags) {
  const plan::BackendCost cost = [&](const engine::CpuBackendConfig& config) {
    return engine::cpu_backend_bytes(*source.checkpoint(), config);
  };
  engine::CpuBackendConfig config;
  config.threads = flags.threads;
  config.isa = flags.isa;
  config.kv_type = flags.kv_type();
  config.activations = flags.activations;
  config.num_blocks = 1;
  const engine::CpuBackendBytes bytes = cost(config);
  return bytes.weights + bytes.mapped +
         kUsualContext * plan::kv_bytes_per_token(cost, flags.kv_type());
}

// Hashes of weights; a file that several variants use is read once.
class Hashes {
 public:
  Result<std::string> of(const std::string& path) {
    const auto found = known_.find(path);
    if (found != known_.end()) return found->second;
    ASSIGN_OR_RETURN(std::string hash, check::weights_hash(path));
    return known_.emplace(path, std::move(hash)).first->second;
  }

 private:
  std::map<std::string, std::string> known_;
};

// What this server would do, against what was checked.
Result<> check_matches(const check::Certificate& certificate, const OpenedVariants& opened,
                       size_t index, Hashes& hashes) {
  const VariantConfig& config = opened.configs[index];
  const ModelFlags& flags = opened.flags[index];
  const ModelFlags& base_flags = opened.flags[opened.base];
  ASSIGN_OR_RETURN(const std::string base_hash, hashes.of(opened.configs[opened.base].path));
  ASSIGN_OR_RETURN(const std::string hash, hashes.of(config.path));
  struct Fact {
    std::string_view what;
    std::string_view certified;
    std::string_view here;
  };
  const Fact facts[] = {
      {"weights whose SHA-256 is", certificate.variant_hash, hash},
      {"a base whose SHA-256 is", certificate.base_hash, base_hash},
      {"the build", certificate.build, kVersion},
      {"the KV type", certificate.kv_dtype, plan::kv_type_name(flags.kv_type())},
      {"a base with the KV type", certificate.base_kv_dtype,
       plan::kv_type_name(base_flags.kv_type())},
      {"activations in", certificate.activations, kernels::name(flags.activations)},
      {"the chat template", certificate.template_name, opened.chat_template->name()},
      {"the device", certificate.device, "cpu"},
  };
  for (const Fact& fact : facts) {
    if (fact.certified == fact.here) continue;
    return at(config, fmt::format("certificate {} is for {} {}, not {}: run puna check again",
                                  config.certificate, fact.what, fact.certified, fact.here));
  }
  return Ok{};
}

route::Verdict verdict_of(check::Verdict verdict) {
  switch (verdict) {
    case check::Verdict::kPass:
      return route::Verdict::kPass;
    case check::Verdict::kRefuse:
      return route::Verdict::kRefused;
    case check::Verdict::kInconclusive:
      return route::Verdict::kInconclusive;
  }
  return route::Verdict::kInconclusive;
}

Result<> read_verdicts(OpenedVariants& opened, size_t index, const check::SigningKey& key,
                       Hashes& hashes) {
  const VariantConfig& config = opened.configs[index];
  auto certificate = check::read_certificate(config.certificate);
  if (!certificate.ok()) return at(config, certificate.error().message());
  const Result<> signed_by_key = check::verify(*certificate, key);
  if (!signed_by_key.ok()) {
    return at(config, fmt::format("certificate {}: {}", config.certificate,
                                  signed_by_key.error().message()));
  }
  RETURN_IF_ERROR(check_matches(*certificate, opened, index, hashes));
  route::Variant& facts = opened.facts[index];
  for (const check::FamilyCertificate& family : certificate->families) {
    if (const auto known = task_family_named(family.name)) {
      facts.verdicts[index_of(*known)] = verdict_of(family.verdict);
    } else if (family.verdict != check::Verdict::kPass) {
      facts.own_items_pass = false;
    }
  }
  return Ok{};
}

Result<> read_certificates(const ModelConfig& config, OpenedVariants& opened) {
  const auto has_none = [](const VariantConfig& variant) { return variant.certificate.empty(); };
  if (std::all_of(opened.configs.begin(), opened.configs.end(), has_none)) return Ok{};
  std::string key_path = config.certificate_key;
  if (key_path.empty()) {
    ASSIGN_OR_RETURN(key_path, check::SigningKey::default_path());
  }
  auto key = check::SigningKey::load(key_path);
  if (!key.ok()) {
    return std::move(key).error().with_context("the key of the certificates (certificate-key)");
  }
  Hashes hashes;
  for (size_t i = 0; i < opened.configs.size(); ++i) {
    if (has_none(opened.configs[i])) continue;
    RETURN_IF_ERROR(read_verdicts(opened, i, *key, hashes));
  }
  return Ok{};
}

// Opens one; the first one that is opened brings tokenizer and template.
Result<> open_one(const VariantConfig& config, const ModelFlags& common, OpenedVariants& opened) {
  ModelFlags flags = common;
  flags.model = config.path;
  if (config.kv_dtype) flags.kv_dtype = config.kv_dtype;
  auto source = ModelSource::open(flags);
  if (!source.ok()) return at(config, source.error());
  auto tokenizer = source->load_tokenizer(flags);
  if (!tokenizer.ok()) return at(config, tokenizer.error());
  if (!opened.tokenizer) {
    opened.tokenizer = std::move(tokenizer->tokenizer);
    opened.tokenizer_bytes = tokenizer->bytes;
    auto chosen = model::ChatTemplate::choose(flags.chat_template, *opened.tokenizer);
    if (!chosen.ok()) return at(config, chosen.error().message());
    opened.chat_template.emplace(std::move(chosen).value());
  } else {
    const Result<> shape = check::check_same_shape(opened.sources.front().spec(), source->spec());
    if (!shape.ok()) return at(config, shape.error());
    const Result<> same = check_same_text(opened, *tokenizer->tokenizer, flags.chat_template);
    if (!same.ok()) return at(config, same.error());
  }
  opened.facts.push_back(
      {.name = config.name, .base = config.base, .cost = cost_of(*source, flags)});
  opened.configs.push_back(config);
  opened.flags.push_back(std::move(flags));
  opened.sources.push_back(std::move(source).value());
  return Ok{};
}

}  // namespace

Result<OpenedVariants> open_variants(const ModelConfig& config, const ModelFlags& common) {
  OpenedVariants opened;
  // The base first, so that others are said to differ from it.
  std::vector<VariantConfig> ordered = config.variants;
  std::stable_partition(ordered.begin(), ordered.end(),
                        [](const VariantConfig& variant) { return variant.base; });
  for (const VariantConfig& variant : ordered) {
    RETURN_IF_ERROR(open_one(variant, common, opened));
  }
  RETURN_IF_ERROR(read_certificates(config, opened));
  return opened;
}

}  // namespace puna::cli
