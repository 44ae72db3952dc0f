// SPDX-License-Identifier: Apache-2.0
// For tests: a bug to commit on purpose now and then, so that the simulation can show that it would
// notice. Always kNone outside tests.
#pragma once

#include <cstdint>

namespace puna::engine {

enum class PlantedBug : uint8_t {
  kNone,
  kLeakedBlock,   // a sequence ends and one of its blocks stays held
  kDoubleFree,    // a sequence ends and one of its blocks is released twice
  kUnfairPick,    // the tenant that was served most starts next
  kMissedCancel,  // a cancelled request runs on
  kLostWakeUp,    // a reader with news is not woken
};

// Which occasions it takes: every one in so many.
inline constexpr uint32_t kPlantedEvery = 8;

}  // namespace puna::engine
