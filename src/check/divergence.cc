// SPDX-License-Identifier: Apache-2.0
#include "check/divergence.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>

#include "base/check.h"

namespace puna::check {
namespace {

constexpr double kLeastLogProbability = -16;

struct LogSum {
  size_t top = 0;
  double value = 0;  // ln of the sum of e^logit
};

LogSum log_sum(std::span<const float> logits) {
  LogSum sum;
  for (size_t i = 1; i < logits.size(); ++i) {
    if (logits[i] > logits[sum.top]) sum.top = i;
  }
  const double largest = static_cast<double>(logits[sum.top]);
  double total = 0;
  for (const float logit : logits) total += std::exp(static_cast<double>(logit) - largest);
  sum.value = largest + std::log(total);
  return sum;
}

// Sums of a sample, and of the products of two.
struct Moments {
  double sum = 0;
  double squares = 0;
  int64_t count = 0;

  void add(double value) {
    sum += value;
    squares += value * value;
    ++count;
  }
  double mean() const { return sum / static_cast<double>(count); }
  // Of the mean.
  double variance() const {
    if (count < 2) return 0;
    const auto n = static_cast<double>(count);
    return std::max(0.0, squares / n - mean() * mean()) / (n - 1);
  }
  Estimate estimate() const { return {.value = mean(), .error = std::sqrt(variance())}; }
};

template <typename Value>
std::array<double, kQuantiles.size()> quantiles(std::span<const TokenDivergence> tokens,
                                                Value value) {
  std::vector<double> sorted;
  sorted.reserve(tokens.size());
  for (const TokenDivergence& token : tokens) sorted.push_back(value(token));
  std::sort(sorted.begin(), sorted.end());
  std::array<double, kQuantiles.size()> result{};
  for (size_t i = 0; i < kQuantiles.size(); ++i) {
    const double at = kQuantiles[i] * static_cast<double>(sorted.size() - 1);
    const auto below = static_cast<size_t>(at);
    const size_t above = std::min(below + 1, sorted.size() - 1);
    result[i] = sorted[below] + (at - static_cast<double>(below)) * (sorted[above] - sorted[below]);
  }
  return result;
}

// Perplexities go together: their ratio is known better than either.
void fill_perplexities(std::span<const TokenDivergence> tokens, Divergence& result) {
  Moments base;
  Moments variant;
  double products = 0;
  for (const TokenDivergence& token : tokens) {
    base.add(token.base_nll);
    variant.add(token.variant_nll);
    products += token.base_nll * token.variant_nll;
  }
  const auto n = static_cast<double>(tokens.size());
  const double covariance = n < 2 ? 0 : (products / n - base.mean() * variant.mean()) / (n - 1);
  const double base_ppl = std::exp(base.mean());
  const double variant_ppl = std::exp(variant.mean());
  result.base_ppl = {.value = base_ppl, .error = base_ppl * std::sqrt(base.variance())};
  result.variant_ppl = {.value = variant_ppl, .error = variant_ppl * std::sqrt(variant.variance())};
  const double spread =
      std::sqrt(std::max(0.0, base.variance() + variant.variance() - 2 * covariance));
  result.log_ppl_ratio = {.value = variant.mean() - base.mean(), .error = spread};
  const double ratio = std::exp(result.log_ppl_ratio.value);
  result.ppl_ratio = {.value = ratio, .error = ratio * spread};
  const double scale = std::sqrt(base.variance() * variant.variance());
  result.nll_correlation = scale > 0 ? covariance / scale : 1;
}

std::string quantile_name(double share) {
  if (share >= 1) return "largest";
  if (share <= 0) return "smallest";
  return share == 0.5 ? "median" : fmt::format("{:g} %", 100 * share);
}

void append_estimate(std::string& out, std::string_view name, const Estimate& of) {
  if (out.back() != '{') out += ", ";
  fmt::format_to(std::back_inserter(out), "\"{}\": {:.9g}, \"{}_error\": {:.9g}", name, of.value,
                 name, of.error);
}

void append_quantiles(std::string& out, std::string_view name,
                      const std::array<double, kQuantiles.size()>& values) {
  fmt::format_to(std::back_inserter(out), ", \"{}\": {{", name);
  for (size_t i = 0; i < values.size(); ++i) {
    fmt::format_to(std::back_inserter(out), "{}\"{:g}\": {:.9g}", i == 0 ? "" : ", ", kQuantiles[i],
                   values[i]);
  }
  out += '}';
}

}  // namespace

double TokenDivergence::delta_p() const { return std::exp(-variant_nll) - std::exp(-base_nll); }

TokenDivergence token_divergence(std::span<const float> base, std::span<const float> variant,
                                 int32_t true_token) {
  CHECK_EQ(base.size(), variant.size());
  CHECK_LT(static_cast<size_t>(true_token), base.size());
  const LogSum base_sum = log_sum(base);
  const LogSum variant_sum = log_sum(variant);
  TokenDivergence result;
  for (size_t i = 0; i < base.size(); ++i) {
    const double base_log = static_cast<double>(base[i]) - base_sum.value;
    if (base_log <= kLeastLogProbability) continue;
    const double variant_log = static_cast<double>(variant[i]) - variant_sum.value;
    result.kld += std::exp(base_log) * (base_log - variant_log);
  }
  const auto token = static_cast<size_t>(true_token);
  result.base_nll = base_sum.value - static_cast<double>(base[token]);
  result.variant_nll = variant_sum.value - static_cast<double>(variant[token]);
  result.same_top = base_sum.top == variant_sum.top;
  // A NaN among the logits of the variant alone may hide behind terms that are left out.
  if (!std::isfinite(variant_sum.value) || !std::isfinite(base_sum.value)) result.kld = NAN;
  return result;
}

Divergence summarise(std::span<const TokenDivergence> tokens) {
  Divergence result;
  result.tokens = static_cast<int64_t>(tokens.size());
  if (tokens.empty()) return result;
  fill_perplexities(tokens, result);
  Moments kld;
  Moments delta;
  Moments squared;
  int64_t same = 0;
  for (const TokenDivergence& token : tokens) {
    const double change = token.delta_p();
    kld.add(token.kld);
    delta.add(change);
    squared.add(change * change);
    same += token.same_top ? 1 : 0;
  }
  result.kld = kld.estimate();
  result.delta_p = delta.estimate();
  const double rms = std::sqrt(squared.mean());
  result.rms_delta_p = {.value = rms,
                        .error = rms > 0 ? std::sqrt(squared.variance()) / (2 * rms) : 0};
  const double share = static_cast<double>(same) / static_cast<double>(tokens.size());
  const double others = std::max(1.0, static_cast<double>(tokens.size() - 1));
  result.same_top = {.value = share, .error = std::sqrt(share * (1 - share) / others)};
  result.kld_quantiles = quantiles(tokens, [](const TokenDivergence& of) { return of.kld; });
  result.delta_p_quantiles =
      quantiles(tokens, [](const TokenDivergence& of) { return of.delta_p(); });
  return result;
}

std::string divergence_table(const Divergence& of) {
  std::string out;
  const auto line = [&](std::string_view name, const Estimate& estimate, double scale,
                        std::string_view unit) {
    fmt::format_to(std::back_inserter(out), "  {:<26}{:>12.6f} ± {:.6f}{}\n", name,
                   scale * estimate.value, scale * estimate.error, unit);
  };
  fmt::format_to(std::back_inserter(out), "{} predicted tokens\n", of.tokens);
  line("perplexity, base", of.base_ppl, 1, "");
  line("perplexity, variant", of.variant_ppl, 1, "");
  line("variant / base", of.ppl_ratio, 1, "");
  line("ln(variant / base)", of.log_ppl_ratio, 1, "");
  fmt::format_to(std::back_inserter(out), "  {:<26}{:>12.4f} %\n", "correlation of ln",
                 100 * of.nll_correlation);
  line("same likeliest token", of.same_top, 100, " %");
  line("mean divergence (KLD)", of.kld, 1, " nats");
  line("mean change of p", of.delta_p, 100, " %");
  line("RMS change of p", of.rms_delta_p, 100, " %");
  fmt::format_to(std::back_inserter(out), "  {:<26}{:>12}{:>18}\n", "", "KLD", "change of p");
  for (size_t i = 0; i < kQuantiles.size(); ++i) {
    fmt::format_to(std::back_inserter(out), "  {:<26}{:>12.6f}{:>16.3f} %\n",
                   quantile_name(kQuantiles[i]), of.kld_quantiles[i],
                   100 * of.delta_p_quantiles[i]);
  }
  return out;
}

std::string divergence_json(const Divergence& of) {
  std::string out = "{";
  append_estimate(out, "base_perplexity", of.base_ppl);
  append_estimate(out, "variant_perplexity", of.variant_ppl);
  append_estimate(out, "perplexity_ratio", of.ppl_ratio);
  append_estimate(out, "log_perplexity_ratio", of.log_ppl_ratio);
  append_estimate(out, "mean_kld", of.kld);
  append_estimate(out, "mean_delta_p", of.delta_p);
  append_estimate(out, "rms_delta_p", of.rms_delta_p);
  append_estimate(out, "same_top", of.same_top);
  append_quantiles(out, "kld_quantiles", of.kld_quantiles);
  append_quantiles(out, "delta_p_quantiles", of.delta_p_quantiles);
  fmt::format_to(std::back_inserter(out), ", \"nll_correlation\": {:.9g}, \"tokens\": {}}}",
                 of.nll_correlation, of.tokens);
  return out;
}

}  // namespace puna::check
