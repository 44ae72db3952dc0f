// SPDX-License-Identifier: Apache-2.0
// Lengths in tokens, drawn at random.
//
//   ASSIGN_OR_RETURN(const Distribution lengths, Distribution::parse("uniform:64:256"));
//   const int32_t tokens = lengths.draw(random);
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "load/random.h"

namespace puna::load {

inline constexpr int32_t kMaxTokens = 1 << 20;  // of one prompt or answer
inline constexpr std::string_view kDistributionForms =
    "N, uniform:A:B, lognormal:MEDIAN:SIGMA or geometric:MEAN";

class Distribution {
 public:
  // One of kDistributionForms. Errors name the text, the limit and the forms.
  static Result<Distribution> parse(std::string_view text);
  static Distribution fixed(int32_t tokens) { return {Kind::kFixed, double(tokens), 0}; }

  // In [1, kMaxTokens].
  int32_t draw(Random& random) const;
  const std::string& text() const { return text_; }

 private:
  enum class Kind : uint8_t { kFixed, kUniform, kLognormal, kGeometric };
  Distribution(Kind kind, double a, double b) : kind_(kind), a_(a), b_(b) {}

  Kind kind_;
  double a_;
  double b_;
  std::string text_;
};

}  // namespace puna::load
