// SPDX-License-Identifier: Apache-2.0
// How far a variant's next-token distributions are from its base's: Kullback–Leibler divergence,
// the change of the true token's probability, and perplexities, as `llama-perplexity
// --kl-divergence` reports them. Terms with a base log-probability under -16 are left out of a
// divergence, as there.
//
//   for each position: of_token(base_logits, variant_logits, next_token)
//   Divergence all = summarise(tokens);
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace puna::check {

// Of one predicted token.
struct TokenDivergence {
  double kld = 0;       // D(base || variant), nats
  double base_nll = 0;  // -ln of the true token's probability
  double variant_nll = 0;
  bool same_top = false;   // the likeliest token is the same
  double delta_p() const;  // change of the true token's probability, share
};

// Rows of equal length; not finite logits give a divergence that is not finite.
TokenDivergence token_divergence(std::span<const float> base, std::span<const float> variant,
                                 int32_t true_token);

// A mean and its standard error.
struct Estimate {
  double value = 0;
  double error = 0;
};

// From the largest to the smallest; shares from 0 (smallest) to 1.
inline constexpr std::array<double, 11> kQuantiles = {1,    0.999, 0.99, 0.95,  0.90, 0.50,
                                                      0.10, 0.05,  0.01, 0.001, 0};

struct Divergence {
  int64_t tokens = 0;
  Estimate base_ppl;
  Estimate variant_ppl;
  Estimate ppl_ratio;      // variant / base
  Estimate log_ppl_ratio;  // its logarithm
  double nll_correlation = 0;
  Estimate kld;  // nats
  std::array<double, kQuantiles.size()> kld_quantiles{};
  Estimate delta_p;  // share, not per cent
  Estimate rms_delta_p;
  std::array<double, kQuantiles.size()> delta_p_quantiles{};
  Estimate same_top;  // share
};

// All zero without tokens.
Divergence summarise(std::span<const TokenDivergence> tokens);

std::string divergence_table(const Divergence& divergence);  // lines for a person
std::string divergence_json(const Divergence& divergence);   // one JSON object

}  // namespace puna::check
