// SPDX-License-Identifier: Apache-2.0
// Several engines on the same cores: their steps take turns, first come first served, so that no
// two fork their work at once and none waits for more than one step of each other engine. What an
// engine measures as its step's time includes the wait, as its streams do. The order of steps of
// different engines changes no bit of any of them.
//
//   StepTurn turn;                                  // outlives the backends
//   TurnBackend base(std::move(cpu_backend), turn);
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "engine/backend.h"

namespace puna::engine {

// A lock that is handed on in the order in which it was asked for. Allocates nothing.
class StepTurn {
 public:
  void enter() {
    const uint32_t mine = next_.fetch_add(1, std::memory_order_relaxed);
    for (;;) {
      const uint32_t now = serving_.load(std::memory_order_acquire);
      if (now == mine) return;
      serving_.wait(now, std::memory_order_acquire);
    }
  }
  void leave() {
    serving_.fetch_add(1, std::memory_order_release);
    serving_.notify_all();
  }

 private:
  std::atomic<uint32_t> next_{0};
  std::atomic<uint32_t> serving_{0};
};

// A backend whose steps wait for their turn.
class TurnBackend final : public Backend {
 public:
  TurnBackend(std::unique_ptr<Backend> backend, StepTurn& turn)
      : backend_(std::move(backend)), turn_(turn) {}

  std::string_view name() const override { return backend_->name(); }
  const BackendLimits& limits() const override { return backend_->limits(); }
  void start(const Batch& batch) override {
    turn_.enter();
    backend_->start(batch);
  }
  std::span<const SampledToken> collect() override {
    const std::span<const SampledToken> sampled = backend_->collect();
    turn_.leave();
    return sampled;
  }

 private:
  const std::unique_ptr<Backend> backend_;
  StepTurn& turn_;
};

}  // namespace puna::engine
