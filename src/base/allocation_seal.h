// SPDX-License-Identifier: Apache-2.0
// Counts heap allocations where there must be none. seal() is called once, when everything that
// steps need was reserved; from then on whatever operator new hands out inside a SealedScope
// counts. The counting operator new belongs to the program (cli/counting_new.cc, and tests of their
// own): it calls note_allocation(), which costs the look at one thread-local bool.
//
//   seal_allocations();
//   { const SealedScope scope; step(); }
//   allocs_after_seal();   // 0
#pragma once

#include <atomic>
#include <cstdint>

namespace puna {

namespace seal_state {
inline constinit thread_local bool in_scope = false;
inline constinit std::atomic<bool> sealed{false};
inline constinit std::atomic<uint64_t> allocations{0};
}  // namespace seal_state

inline void seal_allocations() { seal_state::sealed.store(true, std::memory_order_relaxed); }
inline uint64_t allocs_after_seal() {
  return seal_state::allocations.load(std::memory_order_relaxed);
}
inline void note_allocation() {
  if (seal_state::in_scope) seal_state::allocations.fetch_add(1, std::memory_order_relaxed);
}

class SealedScope {
 public:
  SealedScope() { seal_state::in_scope = seal_state::sealed.load(std::memory_order_relaxed); }
  ~SealedScope() { seal_state::in_scope = before_; }
  SealedScope(const SealedScope&) = delete;
  SealedScope& operator=(const SealedScope&) = delete;

 private:
  const bool before_ = seal_state::in_scope;
};

}  // namespace puna
