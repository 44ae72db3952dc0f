// SPDX-License-Identifier: Apache-2.0
#include "api/canary.h"

#include <algorithm>

namespace puna::api {

Canary::Canary(engine::Engine& engine, ServerStatus& status, TimeNs after_ns)
    : engine_(engine), status_(status), after_ns_(after_ns), made_ns_(SteadyClock().now_ns()) {}

void Canary::look(TimeNs now_ns) {
  const std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock.owns_lock()) return;
  if (channel_ && channel_->next() != nullptr) {
    channel_.reset();
    pending_.reset();
  }
  const TimeNs last_step_ns = engine_.stats().last_step_ns.load();
  const bool idle = now_ns - std::max(last_step_ns, made_ns_) >= after_ns_;
  if (!channel_ && idle) submit(last_step_ns);
}

void Canary::submit(TimeNs last_step_ns) {
  engine::Request request;
  request.id = "canary";
  request.prompt = {0};
  request.stop.max_tokens = 1;
  request.request_class = engine::RequestClass::kBackground;
  std::vector<engine::Request> requests;
  requests.push_back(std::move(request));
  pending_.emplace(status_, last_step_ns);
  auto submission = engine_.submit(std::move(requests), nullptr);
  if (submission.ok() && !submission->refusal) {
    channel_ = submission->channels.front();
    status_.canaries.add();
  } else {
    pending_.reset();  // full or draining: others' work shows whether steps complete
  }
}

}  // namespace puna::api
