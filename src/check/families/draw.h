// SPDX-License-Identifier: Apache-2.0
// The random choices of one item: counter-based, so that they depend on nothing but the request,
// and without <random>'s distributions, which differ among libraries.
//
// Draw once in an expression: the order of two draws among a call's arguments is the compiler's
// choice, and items would be too (FamilyGoldenTest runs under GCC and clang).
//
// unique() spells the item's own place among 2^20: prompts that show what a generator chose by it
// differ for all indices below 2^20. A generator asks for 2^20 combinations in all; make_item
// checks that nothing is left over.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "base/check.h"
#include "check/families/family.h"

namespace puna::check {

inline uint64_t mixed(uint64_t value) {  // SplitMix64's finaliser
  value = (value ^ (value >> 30U)) * 0xBF58476D1CE4E5B9U;
  value = (value ^ (value >> 27U)) * 0x94D049BB133111EBU;
  return value ^ (value >> 31U);
}

class Draw {
 public:
  // `attempt` redraws all but the unique choices.
  Draw(const ItemRequest& request, int32_t attempt)
      : stream_(mixed(request.seed + kGolden * (static_cast<uint64_t>(request.family) + 1)) +
                static_cast<uint64_t>(request.difficulty)),
        key_(mixed(mixed(stream_ ^ static_cast<uint64_t>(request.index)) +
                   static_cast<uint64_t>(attempt))),
        place_(permuted(static_cast<uint64_t>(request.index))) {}

  uint64_t next() { return mixed(key_ + kGolden * ++counter_); }
  // In [low, high]. The remainder's bias is below 2^-40 for the ranges in use.
  int64_t between(int64_t low, int64_t high) {
    CHECK_LE(low, high);
    return low + static_cast<int64_t>(next() % (static_cast<uint64_t>(high - low) + 1));
  }
  size_t below(size_t count) { return static_cast<size_t>(next() % count); }
  // A whole number in a range that a table of levels holds as its two ends.
  size_t within(const std::array<size_t, 2>& range) {
    return range[0] + below(range[1] - range[0] + 1);
  }
  bool one_in(size_t count) { return below(count) == 0; }
  template <typename T, size_t kCount>
  const T& pick(const std::array<T, kCount>& choices) {
    return choices[below(kCount)];
  }
  template <typename T>
  const T& pick(const std::vector<T>& choices) {
    return choices[below(choices.size())];
  }
  template <typename T>
  void shuffle(std::vector<T>& values) {
    for (size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[below(i)]);
  }

  // The next digit of the item's place, in [0, count).
  size_t unique(size_t count) {
    const auto digit = static_cast<size_t>(place_ % count);
    place_ /= count;
    return digit;
  }
  template <size_t kCount>
  std::string_view unique_pick(const std::array<std::string_view, kCount>& choices) {
    return choices[unique(kCount)];
  }
  bool place_is_spelt() const { return place_ == 0; }

 private:
  static constexpr uint64_t kGolden = 0x9E3779B97F4A7C15U;
  static constexpr uint64_t kPlaces = uint64_t{1} << 20U;

  // A permutation of [0, 2^20) that the seed chooses: each step can be undone.
  uint64_t permuted(uint64_t index) const {
    const uint64_t chosen = mixed(stream_ + kGolden);
    uint64_t place = (index * (chosen | 1U) + (chosen >> 40U)) % kPlaces;
    place ^= place >> 11U;
    place = place * ((chosen >> 20U) | 1U) % kPlaces;
    return place ^ (place >> 9U);
  }

  uint64_t stream_;
  uint64_t key_;
  uint64_t counter_ = 0;
  uint64_t place_;
};

}  // namespace puna::check
