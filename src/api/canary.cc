// SPDX-License-Identifier: Apache-2.0
#include "api/canary.h"

#include <algorithm>

namespace puna::api {

Canary::Canary(std::span<engine::Engine* const> engines, ServerStatus& status, TimeNs after_ns)
    : status_(status),
      after_ns_(after_ns),
      made_ns_(SteadyClock().now_ns()),
      cages_(engines.size()) {
  for (size_t i = 0; i < engines.size(); ++i) cages_[i].engine = engines[i];
}

void Canary::look(TimeNs now_ns) {
  const std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock.owns_lock()) return;
  for (size_t i = 0; i < cages_.size(); ++i) {
    Cage& cage = cages_[i];
    if (cage.channel && cage.channel->next() != nullptr) {
      cage.channel.reset();
      cage.pending.reset();
    }
    const TimeNs last_step_ns = cage.engine->stats().last_step_ns.load();
    const bool idle = now_ns - std::max(last_step_ns, made_ns_) >= after_ns_;
    if (!cage.channel && idle) submit(cage, status_.engines[i], last_step_ns);
  }
}

void Canary::submit(Cage& cage, EngineWatch& watch, TimeNs last_step_ns) {
  engine::Request request;
  request.id = "canary";
  request.prompt = {0};
  request.stop.max_tokens = 1;
  request.request_class = engine::RequestClass::kBackground;
  std::vector<engine::Request> requests;
  requests.push_back(std::move(request));
  cage.pending.emplace(watch, last_step_ns);
  auto submission = cage.engine->submit(std::move(requests), nullptr);
  if (submission.ok() && !submission->refusal) {
    cage.channel = submission->channels.front();
    status_.canaries.add();
  } else {
    cage.pending.reset();  // full or draining: others' work shows whether steps complete
  }
}

}  // namespace puna::api
