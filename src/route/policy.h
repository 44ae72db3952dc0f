// SPDX-License-Identifier: Apache-2.0
// Which variant of a model a request goes to: the cheapest that is certified for its family, else
// the cheapest that passes all families, else the base. Under pressure the next of the same order:
// only variants that are certified for the request are in it. Pure functions; any thread.
//
//   const Order order = order_for(variants, found);
//   for (const uint8_t index : order.indexes()) { ... submit to variants[index] ... }
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/task_family.h"
#include "route/task_family.h"

namespace puna::route {

inline constexpr size_t kMaxVariants = 16;
// A family that is less sure counts as unknown: then only what passes all families will do.
inline constexpr double kSureConfidence = 0.6;

enum class Verdict : uint8_t { kUntested, kPass, kRefused, kInconclusive };

struct Variant {
  std::string name;
  bool base = false;  // what the certificates compare with: certified for everything
  uint64_t cost = 0;  // bytes that a token of the answer reads: the weights'
  std::array<Verdict, kNumTaskFamilies> verdicts = {};
  bool own_items_pass = true;  // what else it was checked with: a user's items

  bool passes(TaskFamily family) const {
    return base || verdicts[index_of(family)] == Verdict::kPass;
  }
  // Every family that can be scored, and nothing against it in open chat, which can't be.
  bool passes_all() const;
};

enum class Why : uint8_t {
  kCertified,  // for the family
  kPassesAll,  // the family is unsure, or nothing is certified for it alone
  kBase,       // nothing else will do
  kNamed,      // the request names the variant
};
std::string_view why_text(Why why);

// Variants that the request may go to, the best first.
struct Order {
  std::array<uint8_t, kMaxVariants> variants = {};  // indexes
  size_t count = 0;
  Why why = Why::kBase;  // of the first

  std::span<const uint8_t> indexes() const { return {variants.data(), count}; }
};

// `variants`: 1 to kMaxVariants, one of them the base.
Order order_for(std::span<const Variant> variants, const Classified& found);
// The one that the request names, and no other.
Order only(size_t index);

}  // namespace puna::route
