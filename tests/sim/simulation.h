// SPDX-License-Identifier: Apache-2.0
// One seeded run of the engine against simulated clients and faults. Single-threaded, virtual time.
//
//   Simulation simulation(seed);
//   std::string problem = simulation.run();   // empty: all promises held; a broken invariant
//   aborts
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/clock.h"
#include "engine/engine.h"
#include "engine/null_backend.h"
#include "engine/solo_run.h"

namespace puna::sim {

// What happened, to see that a suite of seeds reaches everything.
struct Events {
  uint64_t answers = 0;
  uint64_t cancelled = 0;
  uint64_t failed_by_stop = 0;
  uint64_t refusals = 0;
  uint64_t impossible = 0;
  uint64_t preemptions = 0;
  uint64_t cached_tokens = 0;
  uint64_t steps = 0;
};

class Simulation {
 public:
  explicit Simulation(uint64_t seed);
  // The first broken promise in words, or nothing.
  std::string run();
  const Events& events() const { return events_; }

 private:
  // A call that a client makes at some time; again later if it is refused.
  struct Call {
    TimeNs at_ns = 0;
    std::vector<engine::Request> choices;
    TimeNs patience_ns = 0;   // cancels then; 0: never
    bool reads_late = false;  // only after everything ended
    bool possible = true;
  };
  struct Client {
    engine::Request request;
    engine::ChannelPtr channel;
    TimeNs gives_up_ns = 0;  // 0: never
    bool gave_up = false;
    bool reads_late = false;
    std::vector<engine::TokenId> tokens;
    std::vector<float> logprobs;
    engine::FinishReason finish = engine::FinishReason::kNone;
    uint64_t last_news_step = 0;
  };

  uint64_t pick(uint64_t below) { return random_() % below; }
  bool chance(uint64_t one_in) { return pick(one_in) == 0; }
  engine::NullBackendConfig make_backend_config();
  engine::EngineConfig make_engine_config();
  void make_calls();
  engine::Request make_request();
  engine::SamplingParams make_sampling();

  void make_due_calls();
  void submit(Call& call);
  void let_clients_act();
  void read(Client& client);
  void inject_faults();
  bool finished() const;
  void check_progress(const Client& client);
  void check_answer(const Client& client);
  void check_cached(const Client& client);
  void check_end();
  void problem(const std::string& text);

  std::mt19937_64 random_;
  model::Tokenizer tokenizer_;
  VirtualClock clock_;
  engine::NullBackend backend_;
  engine::EngineConfig config_;
  std::unique_ptr<engine::Engine> engine_;
  std::vector<std::vector<engine::TokenId>> prefixes_;  // beginnings that prompts share
  std::vector<Call> calls_;                             // by time, latest first
  std::vector<Client> clients_;
  int32_t pool_limit_ = 0;
  uint64_t limit_ends_step_ = 0;  // the pool is whole again from this step on
  uint64_t last_fault_step_ = 0;
  bool stopped_ = false;
  uint64_t steps_ = 0;
  std::string problem_;
  Events events_;
};

}  // namespace puna::sim
