// SPDX-License-Identifier: Apache-2.0
// The degrade ladder: what is given up under load, mildest first, and nothing else (never the
// model, the context or the precision of an admitted request). The engine does rungs 1 to 3 by
// itself when they are due (evicting, cutting chunks, pausing background); this says how high the
// ladder stands, and admission refuses the classes of rungs 4 and 5. Rung 6 is the full interactive
// queue.
#pragma once

#include <array>

#include "engine/engine.h"

namespace puna::engine {

// What happened in the last step.
struct LoadSigns {
  bool evicted = false;
  bool chunk_cut = false;
  bool paused_background = false;
  std::array<double, kNumClasses> queue_fill = {};  // of its bound in tokens, requests or time
};

class DegradeLadder {
 public:
  // A class is refused from this fill of a higher class's queue on, and again taken below half.
  static constexpr double kRefuseBackgroundFill = 0.25;
  static constexpr double kRefuseBatchFill = 0.5;

  Rung update(const LoadSigns& signs);

 private:
  Rung refusing_ = Rung::kNone;
};

// Whether a request of this class is refused on this rung.
constexpr bool refuses(Rung rung, RequestClass request_class) {
  if (request_class == RequestClass::kBackground) return rung >= Rung::kRefuseBackground;
  return request_class == RequestClass::kBatch && rung >= Rung::kRefuseBatch;
}

}  // namespace puna::engine
