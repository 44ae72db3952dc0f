// SPDX-License-Identifier: Apache-2.0
// A bug to commit on purpose now and then, so that a test can show that the simulation notices it.
// Only tests/sim/planted_bug_test compiles the engine with PUNA_PLANTED_BUGS; everywhere else
// commits() is a constant false, and nothing of this is in the program.
#pragma once

#include <cstdint>

namespace puna::engine {

enum class PlantedBug : uint8_t {
  kNone,
  kLeakedBlock,      // a sequence ends and one of its blocks stays held
  kDoubleFree,       // a sequence ends and one of its blocks is released twice
  kUnfairPick,       // the tenant that was served most starts next
  kMissedCancel,     // a cancelled request runs on
  kLostWakeUp,       // a reader with news is not woken
  kEarlyResume,      // a paused sequence comes back without room for what it has
  kTokenAfterEnd,    // an answer goes on after its last token
  kLostSave,         // a paused sequence's block is not copied to the host
  kMixedUpRestore,   // two of its blocks come back in each other's place
  kEarlyReturn,      // it goes on before its blocks are back
  kLeakedHostBlock,  // it needs its places on the host no more, and one stays taken
};

#ifdef PUNA_PLANTED_BUGS
inline PlantedBug planted_bug = PlantedBug::kNone;
inline uint32_t planted_every = 8;  // which occasions it takes: every one in so many
inline uint32_t planted_occasions = 0;

inline bool commits(PlantedBug bug) {
  return planted_bug == bug && ++planted_occasions % planted_every == 0;
}
#else
constexpr bool commits(PlantedBug) { return false; }
#endif

}  // namespace puna::engine
