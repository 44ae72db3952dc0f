// SPDX-License-Identifier: Apache-2.0
// One seeded run of the engine against simulated clients and faults. Single-threaded, virtual time.
//
//   Simulation simulation(seed, 1000);
//   std::string problem = simulation.run();  // empty: all promises held; a broken invariant of the
//   engine itself aborts
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "engine/solo_run.h"
#include "scenario.h"
#include "turns.h"

namespace puna::sim {

// What happened, to see that a suite of seeds reaches everything.
struct Events {
  uint64_t steps = 0;  // that computed something or ended somebody
  uint64_t answers = 0;
  uint64_t cancelled = 0;
  uint64_t late = 0;  // the deadline ended them
  uint64_t failed_by_stop = 0;
  uint64_t refusals = 0;
  uint64_t impossible = 0;
  uint64_t preemptions = 0;
  uint64_t cached_tokens = 0;
  uint64_t saved_blocks = 0;  // to the host
  uint64_t restored_blocks = 0;
  uint64_t solo_runs = 0;

  void add(const Events& other);
};

class Simulation {
 public:
  Simulation(uint64_t seed, uint64_t steps);
  // The first broken promise in words, or nothing.
  std::string run();
  const Events& events() const { return events_; }

 private:
  // An I/O thread: it looks at its channels when it was woken.
  struct Reader final : engine::Waker {
    void wake() noexcept override { woken = true; }
    bool woken = false;
  };
  // A call that was refused, and is made again.
  struct Retry {
    TimeNs at_ns = 0;
    std::vector<engine::Request> choices;
  };
  enum class Habit : uint8_t { kReads, kReadsLate, kReadsAtTheEnd };
  struct Client {
    engine::Request request;  // as the engine's policy leaves it
    engine::ChannelPtr channel;
    Reader* reader = nullptr;
    Habit habit = Habit::kReads;
    uint64_t call = 0;
    uint64_t ticket = 0;
    TimeNs leaves_ns = 0;  // 0: stays
    bool left = false;     // before the step that runs now
    bool waited = false;   // for its first step, when the step began
    bool ended = false;    // seen in its facts
    std::vector<engine::TokenId> tokens;
    std::vector<float> logprobs;
    engine::FinishReason finish = engine::FinishReason::kNone;
    uint64_t last_news_step = 0;

    bool started() const { return channel->facts().first_scheduled_ns != 0; }
    bool ended_now() const { return channel->facts().finished_ns != 0; }
    size_t rank() const { return engine::index_of(request.request_class); }
    size_t tenant() const { return static_cast<size_t>(request.tenant); }
  };

  void make_calls();
  void call(std::vector<engine::Request> choices);
  void take(std::vector<engine::Request>& choices, engine::Engine::Submission& submission);
  void refuse(std::vector<engine::Request>& choices, const engine::Refusal& refusal);

  void step();
  void idle();
  void watch_turns_before();
  void watch_turns_after();
  void note_start(const Client& client);
  void let_clients_act();
  void read(Client& client);
  void check_reader(Client& client);
  void check_prompt_end(const Client& client);
  void check_progress(const Client& client);
  void inject_faults();

  void finish();
  void check_answer(const Client& client);
  void check_cached();
  void check_counters();
  void problem(const std::string& text);

  Scenario scenario_;
  Dice& dice_;
  const uint64_t least_steps_;
  const model::Tokenizer& tokenizer_;
  VirtualClock clock_;
  engine::NullBackend backend_;
  std::vector<Reader> readers_;  // they outlive the engine
  std::unique_ptr<engine::Engine> engine_;
  std::vector<Retry> retries_;
  std::deque<Client> clients_;
  std::vector<Client*> open_;  // not ended, or not read to the end
  Turns turns_;
  std::unordered_map<uint64_t, int32_t> running_calls_;  // calls whose prompt somebody computes

  uint64_t calls_ = 0;
  uint64_t one_in_ = 0;  // a call per step and so many, in this phase; 0: none
  uint64_t phase_ends_ = 0;
  uint64_t rounds_ = 0;
  TimeNs step_began_ns_ = 0;
  int32_t pool_limit_ = 0;
  uint64_t limit_ends_round_ = 0;  // the pool is whole again from this round on
  uint64_t last_fault_round_ = 0;
  bool arriving_ = true;
  bool stopped_ = false;
  std::string problem_;
  Events events_;
};

}  // namespace puna::sim
