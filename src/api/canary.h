// SPDX-License-Identifier: Apache-2.0
// Proves that steps complete while nobody asks for any: when /ready is asked and the engine has
// been idle for a while, a request of one token is submitted, and until it is answered it counts as
// work that the engine must get done. Without probes nothing runs. Any thread; never waits.
#pragma once

#include <mutex>
#include <optional>

#include "api/server_status.h"
#include "engine/engine.h"

namespace puna::api {

class Canary {
 public:
  Canary(engine::Engine& engine, ServerStatus& status, TimeNs after_ns);

  void look(TimeNs now_ns);

 private:
  void submit(TimeNs last_step_ns);

  engine::Engine& engine_;
  ServerStatus& status_;
  const TimeNs after_ns_;
  const TimeNs made_ns_;
  std::mutex mutex_;  // of the rest; whoever finds it taken leaves the look to the other
  engine::ChannelPtr channel_;
  std::optional<Unanswered> pending_;
};

}  // namespace puna::api
