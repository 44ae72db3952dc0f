// SPDX-License-Identifier: Apache-2.0
// Philox4x32-10: a counter-based random number generator. The numbers are a pure function of
// (key, counter), so a token's draw depends on its request's seed and its position alone, never on
// what was drawn before or on who else is in the batch. Source: Salmon, Moraes, Dror, Shaw,
// "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011.
#pragma once

#include <array>
#include <cstdint>

namespace puna::engine {

using PhiloxCounter = std::array<uint32_t, 4>;

constexpr PhiloxCounter philox(uint64_t key, PhiloxCounter counter) {
  auto key_low = static_cast<uint32_t>(key);
  auto key_high = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t left = uint64_t{0xD2511F53} * counter[0];
    const uint64_t right = uint64_t{0xCD9E8D57} * counter[2];
    counter = {
        static_cast<uint32_t>(right >> 32) ^ counter[1] ^ key_low, static_cast<uint32_t>(right),
        static_cast<uint32_t>(left >> 32) ^ counter[3] ^ key_high, static_cast<uint32_t>(left)};
    key_low += 0x9E3779B9;
    key_high += 0xBB67AE85;
  }
  return counter;
}

// Uniform in [0, 1), a multiple of 2^-53.
constexpr double uniform_at(uint64_t seed, uint64_t position) {
  const PhiloxCounter bits =
      philox(seed, {static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32), 0, 0});
  const uint64_t word = (uint64_t{bits[0]} << 32) | bits[1];
  return static_cast<double>(word >> 11) * 0x1p-53;
}

}  // namespace puna::engine
