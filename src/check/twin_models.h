// SPDX-License-Identifier: Apache-2.0
// Two models that read the same tokens in lock-step on the CPU, so that their logits are compared
// where they are made and none is stored. One thread uses it; the compute pool works inside.
//
//   ASSIGN_OR_RETURN(TwinModels twins, TwinModels::create(base, variant, config));
//   RETURN_IF_ERROR(twins.measure(tokens, tokens.size() / 2, divergences));
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "check/divergence.h"
#include "formats/checkpoint.h"
#include "kernels/cpu/cpu_options.h"
#include "kernels/ops.h"

namespace puna::check {

struct TwinConfig {
  int32_t max_tokens = 512;  // in one call of measure()
  int32_t threads = 0;       // 0: one per core this process may use
  std::string_view isa = {};
  kernels::ActivationMode activations = kernels::ActivationMode::kInt8;
  kernels::KvType base_kv = kernels::KvType::kBF16;
  kernels::KvType variant_kv = kernels::KvType::kBF16;
};

// Errors: kInvalidArgument when the variant can't be a quantised form of the base: another
// architecture, shape, rotation or vocabulary size. The message names the difference.
Result<> check_same_shape(const formats::ModelSpec& base, const formats::ModelSpec& variant);

class TwinModels {
 public:
  // The checkpoints must outlive it. Errors: as check_same_shape(), kResourceExhausted.
  static Result<TwinModels> create(const formats::Checkpoint& base,
                                   const formats::Checkpoint& variant, const TwinConfig& config);
  TwinModels(TwinModels&&) noexcept;
  TwinModels& operator=(TwinModels&&) noexcept;
  ~TwinModels();

  // Appends one entry for each of the tokens from `first` + 1 on, predicted from those before it.
  // 2 to max_tokens tokens, `first` < their number - 1. Errors: kCorrupt when logits are not
  // finite.
  Result<> measure(std::span<const int32_t> tokens, size_t first,
                   std::vector<TokenDivergence>& out);

 private:
  struct Parts;
  explicit TwinModels(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace puna::check
