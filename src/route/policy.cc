// SPDX-License-Identifier: Apache-2.0
#include "route/policy.h"

#include <algorithm>

#include "base/check.h"

namespace puna::route {
namespace {

void append(Order& order, size_t index) {
  order.variants[order.count++] = static_cast<uint8_t>(index);
}

// Cheapest first; among equals the one that the configuration names first.
template <typename Takes>
Order by_cost(std::span<const Variant> variants, Takes takes) {
  Order order;
  for (size_t i = 0; i < variants.size(); ++i) {
    if (takes(variants[i])) append(order, i);
  }
  std::stable_sort(order.variants.begin(), order.variants.begin() + order.count,
                   [&](uint8_t a, uint8_t b) { return variants[a].cost < variants[b].cost; });
  return order;
}

}  // namespace

bool Variant::passes_all() const {
  if (base) return true;
  if (!own_items_pass) return false;
  for (size_t i = 0; i < kNumTaskFamilies; ++i) {
    const bool chat = static_cast<TaskFamily>(i) == TaskFamily::kOpenChat;
    const bool good = verdicts[i] == Verdict::kPass || (chat && verdicts[i] != Verdict::kRefused);
    if (!good) return false;
  }
  return true;
}

std::string_view why_text(Why why) {
  switch (why) {
    case Why::kCertified:
      return "the cheapest that is certified for the family";
    case Why::kPassesAll:
      return "the cheapest that passes all families";
    case Why::kBase:
      return "the base: no other variant is certified for the request";
    case Why::kNamed:
      return "the request names it";
  }
  return "";
}

Order order_for(std::span<const Variant> variants, const Classified& found) {
  CHECK(!variants.empty() && variants.size() <= kMaxVariants);
  const auto is_certified = [&](const Variant& variant) { return variant.passes(found.family); };
  const auto is_alternative = [&](const Variant& variant) {
    return !variant.base && is_certified(variant);
  };
  const bool for_family = found.confidence >= kSureConfidence &&
                          std::any_of(variants.begin(), variants.end(), is_alternative);
  Order order =
      for_family ? by_cost(variants, is_certified)
                 : by_cost(variants, [](const Variant& variant) { return variant.passes_all(); });
  CHECK_GT(order.count, size_t{0});  // the base
  const Variant& first = variants[order.variants[0]];
  order.why = first.base ? Why::kBase : for_family ? Why::kCertified : Why::kPassesAll;
  return order;
}

Order only(size_t index) {
  Order order;
  append(order, index);
  order.why = Why::kNamed;
  return order;
}

}  // namespace puna::route
