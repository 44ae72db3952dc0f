// SPDX-License-Identifier: Apache-2.0
// What a check found out about a variant of a model, signed: which files, computed how, and a
// verdict per task family. Written by `puna check`, read by whoever routes by it. The text is
// canonical: the signature is an HMAC-SHA256 over the JSON without it, and a file whose bytes are
// not those that certificate_json() gives is refused.
//
//   ASSIGN_OR_RETURN(const SigningKey key, SigningKey::load(path));
//   ASSIGN_OR_RETURN(const Certificate certificate, read_certificate("check/certificate.json"));
//   RETURN_IF_ERROR(verify(certificate, key));
//   if (certificate.passes("arithmetic")) ...
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "check/signing_key.h"

namespace puna::check {

enum class Verdict : uint8_t {
  kPass,          // not worse than the base by delta
  kRefuse,        // worse by more than delta
  kInconclusive,  // not known: treat it as not certified
};
std::string_view name(Verdict verdict);  // "pass", "refuse", "inconclusive"

// Shares are 0…1.
struct FamilyCertificate {
  std::string name = {};  // of check::Family, or of a user's items: "gsm8k"
  int32_t version = 0;    // of the family's generator and scorer
  int64_t n = 0;          // pairs
  double accuracy_base = 0;
  double accuracy_variant = 0;
  int64_t b = 0;            // base right, variant wrong
  int64_t c = 0;            // the reverse
  double loss = 0;          // (b - c) / n
  double interval_low = 0;  // of the loss; see docs/check.md for its error
  double interval_high = 0;
  double p = 1;          // of "no loss at all"; corrected for the number of families (Holm)
  double power = 0;      // chance to pass that a variant without loss had, at these flips
  double kld = -1;       // mean divergence on the family's answers, nats; -1: not measured
  double same_top = -1;  // share of tokens with the same likeliest one; -1: not measured
  Verdict verdict = Verdict::kInconclusive;
  bool degraded = false;  // a loss is certain, whatever the verdict
  bool early = false;     // decided before all items were asked
  std::string why = {};   // one sentence
};

struct Certificate {
  std::string base;  // file names, for people
  std::string variant;
  std::string base_hash;  // SHA-256 of the weights' bytes, hex (weights_hash.h)
  std::string variant_hash;
  std::string build;     // version of Puna
  std::string device;    // "cpu", "cuda"
  std::string isa;       // instruction set of the kernels, "" on a GPU
  std::string kv_dtype;  // of the variant: "bf16", "int8", "f32"; "f16" on a GPU
  std::string base_kv_dtype;
  std::string activations;    // "int8", "int8-wide", "float"
  std::string template_name;  // chat template
  uint64_t seed = 0;
  int32_t difficulty = 0;
  double delta = 0;        // largest loss that passes
  double error = 0;        // of a false pass, and of a false refusal
  double early_error = 0;  // the part of it for early ends; 0: none
  // The control: the base asked again in smaller batches.
  int64_t control_items = 0;
  int64_t control_flips = 0;
  std::vector<FamilyCertificate> families;
  std::string key_id;     // which key signed
  std::string signature;  // hex

  // Null when the family was not asked.
  const FamilyCertificate* family(std::string_view name) const;
  bool passes(std::string_view family_name) const;
};

// One JSON object with a line per family, a newline at the end.
std::string certificate_json(const Certificate& certificate);

// Fills key_id and signature.
void sign(Certificate& certificate, const SigningKey& key);
// Errors: kCorrupt when it was changed after it was signed, kInvalidArgument when another key
// signed it.
Result<> verify(const Certificate& certificate, const SigningKey& key);

// Errors: kCorrupt with `where` for what is not a certificate, byte for byte; verify() is apart.
Result<Certificate> parse_certificate(std::string_view text, const std::string& where);
Result<Certificate> read_certificate(const std::string& path);

}  // namespace puna::check
