// SPDX-License-Identifier: Apache-2.0
#include "load/distribution.h"

#include <algorithm>
#include <cmath>

#include "load/text_numbers.h"

namespace puna::load {
namespace {

constexpr double kMaxSigma = 5;

Error bad_form(std::string_view text) {
  return Error(ErrorCode::kInvalidArgument, "\"{}\" is no distribution: use {}", text,
               kDistributionForms);
}

Error out_of_range(std::string_view text) {
  return Error(ErrorCode::kInvalidArgument,
               "\"{}\" is out of range: 1 to {} tokens, sigma 0 to {}, A at most B", text,
               kMaxTokens, kMaxSigma);
}

bool is_length(double tokens) { return tokens >= 1 && tokens <= kMaxTokens; }

}  // namespace

Result<Distribution> Distribution::parse(std::string_view text) {
  const std::vector<std::string_view> fields = split(text, ':');
  std::vector<double> numbers;
  for (size_t i = fields.size() == 1 ? 0 : 1; i < fields.size(); ++i) {
    const auto number = parse_number<double>(fields[i]);
    if (!number) return bad_form(text);
    numbers.push_back(*number);
  }
  Distribution made = fixed(1);
  bool in_range = is_length(numbers.front());
  if (fields.size() == 1) {
    made = Distribution(Kind::kFixed, numbers[0], 0);
  } else if (fields[0] == "uniform" && numbers.size() == 2) {
    made = Distribution(Kind::kUniform, numbers[0], numbers[1]);
    in_range = in_range && is_length(numbers[1]) && numbers[0] <= numbers[1];
  } else if (fields[0] == "lognormal" && numbers.size() == 2) {
    made = Distribution(Kind::kLognormal, numbers[0], numbers[1]);
    in_range = in_range && numbers[1] >= 0 && numbers[1] <= kMaxSigma;
  } else if (fields[0] == "geometric" && numbers.size() == 1) {
    made = Distribution(Kind::kGeometric, numbers[0], 0);
  } else {
    return bad_form(text);
  }
  if (!in_range) return out_of_range(text);
  made.text_ = std::string(text);
  return made;
}

int32_t Distribution::draw(Random& random) const {
  double tokens = a_;
  if (kind_ == Kind::kUniform) {
    tokens =
        static_cast<double>(random.between(static_cast<int64_t>(a_), static_cast<int64_t>(b_)));
  } else if (kind_ == Kind::kLognormal) {
    tokens = a_ * std::exp(b_ * random.normal());
  } else if (kind_ == Kind::kGeometric && a_ > 1) {
    // 1, 2, ... with P(n) = p (1 - p)^(n-1), whose mean is 1 / p.
    tokens = 1 + std::floor(std::log1p(-random.uniform()) / std::log1p(-1 / a_));
  }
  return static_cast<int32_t>(std::clamp<double>(std::round(tokens), 1, kMaxTokens));
}

}  // namespace puna::load
