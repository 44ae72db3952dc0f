// SPDX-License-Identifier: Apache-2.0
#include "engine/degrade.h"

#include <algorithm>

namespace puna::engine {

Rung DegradeLadder::update(const LoadSigns& signs) {
  const double interactive = signs.queue_fill[0];
  const double above_background = std::max(interactive, signs.queue_fill[1]);
  const auto holds = [&](Rung rung, double fill, double limit) {
    return fill >= (refusing_ >= rung ? limit / 2 : limit);
  };
  Rung next = Rung::kNone;
  if (holds(Rung::kRefuseBackground, above_background, kRefuseBackgroundFill)) {
    next = Rung::kRefuseBackground;
  }
  if (holds(Rung::kRefuseBatch, interactive, kRefuseBatchFill)) next = Rung::kRefuseBatch;
  if (interactive >= 1.0) next = Rung::kRefuseInteractive;
  refusing_ = next;
  if (next != Rung::kNone) return next;
  if (signs.paused_background) return Rung::kPauseBackground;
  if (signs.chunk_cut) return Rung::kSmallerChunk;
  return signs.evicted ? Rung::kDropCached : Rung::kNone;
}

}  // namespace puna::engine
