// SPDX-License-Identifier: Apache-2.0
// Proves that steps complete while nobody asks for any: when /ready is asked and an engine has
// been idle for a while, a request of one token is submitted, and until it is answered it counts as
// work that the engine must get done. Without probes nothing runs. Any thread; never waits.
#pragma once

#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "api/server_status.h"
#include "engine/engine.h"

namespace puna::api {

class Canary {
 public:
  // `status` watches so many engines, in this order.
  Canary(std::span<engine::Engine* const> engines, ServerStatus& status, TimeNs after_ns);

  void look(TimeNs now_ns);

 private:
  struct Cage {  // of one engine
    engine::Engine* engine = nullptr;
    engine::ChannelPtr channel = {};
    std::optional<Unanswered> pending = {};
  };
  void submit(Cage& cage, EngineWatch& watch, TimeNs last_step_ns);

  ServerStatus& status_;
  const TimeNs after_ns_;
  const TimeNs made_ns_;
  std::mutex mutex_;  // of the rest; whoever finds it taken leaves the look to the other
  std::vector<Cage> cages_;
};

}  // namespace puna::api
