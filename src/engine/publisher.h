// SPDX-License-Identifier: Apache-2.0
// The end of a step: decides whether a token ends its answer, puts it into the request's channel,
// keeps the request's times and the engine's counters, and wakes each reader once. Engine thread
// only.
#pragma once

#include <vector>

#include "engine/engine.h"
#include "engine/sequence.h"

namespace puna::engine {

class Publisher {
 public:
  // `max_wakers`: how many sequences can have news in one step.
  Publisher(EngineStats& stats, size_t max_wakers);

  // Appends the token to the sequence. True when the answer ended with it.
  bool token(Sequence& sequence, const SampledToken& sampled, TimeNs now_ns);
  // Ends the answer without a token.
  void end(Sequence& sequence, FinishReason reason, TimeNs now_ns);
  // Wakes every reader that has news since the last call, once each.
  void wake();

 private:
  void observe_token(Sequence& sequence, TimeNs now_ns);
  void observe_end(Sequence& sequence, FinishReason reason, TimeNs now_ns);
  void remember_waker(Waker* waker);

  EngineStats& stats_;
  std::vector<Waker*> wakers_;
};

}  // namespace puna::engine
