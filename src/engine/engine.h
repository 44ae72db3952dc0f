// SPDX-License-Identifier: Apache-2.0
// The engine: one thread that owns every sequence and every KV block, and turns requests into
// tokens by repeating plan -> commit -> run -> publish. Other threads only submit, cancel and read
// atomics.
//
//   Engine engine(config, backend, tokenizer, clock);
//   engine.start();                                     // or step() by hand, as the simulation
//   does auto channels = engine.submit(std::move(requests), &waker);
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/metrics.h"
#include "base/result.h"
#include "engine/backend.h"
#include "engine/request.h"
#include "model/tokenizer.h"

namespace puna::engine {

// How requests of one class are treated. Classes start in the order of RequestClass; a lower one
// that waits gets one start in kStartsPerTurn (scheduler.h).
struct ClassPolicy {
  int64_t max_queued_tokens = 1 << 18;  // prompt tokens of its requests that have not started
  TimeNs max_queue_time_ns = 0;         // a longer expected wait is refused at once; 0: none
  int32_t max_output_tokens = 0;        // caps max_tokens; 0: the context
  int32_t default_output_tokens = 256;  // reserved when the client gives no max_tokens
  double kv_share = 1.0;                // of the pool that its running requests may reserve
  TimeNs tpot_target_ns = 0;            // prompts leave its streams this pace; 0: any
};

// Inside a class, tenants share by tokens served over weight.
struct TenantPolicy {
  std::string name = "default";
  double weight = 1.0;
  double kv_share = 0.0;  // of the cached blocks that others can't evict; 0: by weight
};

struct EngineConfig {
  int32_t max_queued_requests = 256;
  int64_t max_queued_tokens = 1 << 18;  // prompt tokens of requests that have not started
  int64_t max_request_bytes = 0;  // of all requests that are not gone (request_memory.h); 0: any
  int32_t prefill_chunk_tokens = 256;  // largest piece of a prompt in one step
  bool prefix_cache = true;
  uint64_t model_digest = 0;  // seeds the prefix cache's block hashes
  bool chunk_sizing = true;   // size prompts' chunks by the latency model and the tpot targets
  std::array<ClassPolicy, kNumClasses> classes = {{
      {.max_queue_time_ns = 30 * kNsPerSecond, .tpot_target_ns = 50 * kNsPerMs},
      {.max_queue_time_ns = 600 * kNsPerSecond, .tpot_target_ns = 200 * kNsPerMs},
      {.kv_share = 0.5},
  }};
  std::vector<TenantPolicy> tenants = {{}};
};

enum class RefusalReason : uint8_t {
  kQueueFull,     // too many wait, or the wait would exceed the class's limit
  kClassRefused,  // the degrade ladder takes nothing of this class now
  kDeadline,      // deadline, ttft or tpot target can't be met
  kDraining,      // the server stops
};

// What the engine gives up under load, mildest first.
enum class Rung : uint8_t {
  kNone,
  kDropCached,       // cached blocks are evicted
  kSmallerChunk,     // prompts' chunks are cut so that streams keep their pace
  kPauseBackground,  // a running background request gives way
  kRefuseBackground,
  kRefuseBatch,
  kRefuseInteractive,
};
inline constexpr int kNumRungs = 7;

// Why a request was not taken: refused now, may be taken later.
struct Refusal {
  RefusalReason reason = RefusalReason::kQueueFull;
  std::string message;
  int64_t tokens_ahead = 0;    // queued prompt tokens that would start before it
  double retry_after_s = 1.0;  // until a request like it would be taken
  int32_t max_tokens_now = 0;  // the largest max_tokens that would be taken now; 0: none
  bool draining = false;       // 503 instead of 429
};

// What submit() would say, and when tokens would come; seconds from now.
struct Quote {
  bool admitted = false;
  std::unique_ptr<Refusal> refusal = nullptr;  // when not
  double ttft_p50_s = 0;
  double ttft_p95_s = 0;
  double end_p50_s = 0;
  double end_p95_s = 0;
  int64_t tokens_ahead = 0;
};

// Where the engine thread is, for a probe that finds it stuck.
enum class StepPhase : uint8_t { kIdle, kPlan, kRun, kPublish };

// Cells that any thread may read. Names and meanings follow vLLM's metrics (design: Surface).
struct EngineStats {
  explicit EngineStats(size_t tenants = 1);
  Gauge requests_running;
  Gauge requests_waiting;
  Gauge tokens_waiting;
  Gauge kv_cache_usage;           // held by sequences / total, 0…1
  Gauge tokens_in_flight;         // positions held by running sequences
  Gauge host_kv_usage;            // places for blocks in host memory that are taken, 0…1
  Counter kv_blocks_swapped_out;  // of paused sequences, to the host
  Counter kv_blocks_swapped_in;   // and back
  Counter prefix_cache_queries;   // prompt tokens looked up
  Counter prefix_cache_hits;      // prompt tokens found
  Counter prompt_tokens;
  Counter generation_tokens;
  Counter finished_stop;
  Counter finished_length;
  Counter finished_cancelled;
  Counter finished_deadline;
  Counter finished_error;
  Counter preemptions;
  Counter refusals;
  std::array<Counter, kNumClasses> class_refusals;
  std::array<Gauge, kNumClasses> class_requests_waiting;
  std::array<Gauge, kNumClasses> class_tokens_waiting;
  // The degrade ladder: the rung now, and for each rung how many steps it was used in.
  Gauge degrade_rung;
  std::array<Counter, kNumRungs> rung_steps;
  struct Tenant {
    Counter prompt_tokens;  // of requests that started, less what the prefix cache had
    Counter generation_tokens;
  };
  std::vector<Tenant> tenants;  // as EngineConfig::tenants
  // Predicted against measured step time, summed over steps that the model was ready for.
  Counter predicted_steps;
  Gauge step_time_predicted_s;  // of the last such step
  Gauge step_time_measured_s;
  Histogram step_time_error;  // |measured / predicted - 1|
  Counter steps;
  std::atomic<StepPhase> phase{StepPhase::kIdle};
  std::atomic<TimeNs> last_step_ns{0};  // when the last step ended; 0 before the first
  Histogram time_to_first_token_s;
  Histogram ttft_over_quote;  // over the quoted p95
  Histogram inter_token_latency_s;
  Histogram e2e_latency_s;
  Histogram queue_time_s;
  Histogram prefill_time_s;
  Histogram decode_time_s;
  Histogram request_prompt_tokens;
  Histogram request_generation_tokens;
  Histogram iteration_tokens;
  Histogram step_time_s;
};

using ChannelPtr = std::shared_ptr<RequestChannel>;

// How long a server's engine learns step times before it is ready (docs/decisions/009).
inline constexpr TimeNs kCalibrationBudget = 100 * kNsPerMs;

class Engine {
 public:
  // `backend`, `tokenizer` and `clock` outlive the engine.
  Engine(const EngineConfig& config, Backend& backend, const model::Tokenizer& tokenizer,
         const Clock& clock);
  ~Engine();  // stops the thread; unfinished requests end with kError

  // Any thread. Takes all of `requests` (the choices of one call; they share a prompt's blocks) or
  // none. Errors: kInvalidArgument with exact counts when a request can never fit (prompt +
  // max_tokens over the context, or more blocks than the pool has). When full or draining: Ok with
  // `refusal` filled and no channels.
  struct Submission {
    std::vector<ChannelPtr> channels = {};
    std::unique_ptr<Refusal> refusal = nullptr;
  };
  Result<Submission> submit(std::vector<Request> requests, Waker* waker);
  // Any thread: what submit() would answer to this request, without running it. Errors as submit().
  Result<Quote> quote(const Request& request) const;
  // Any thread: the engine notices a cancel flag at its next step even when it sleeps.
  void cancel(RequestChannel& channel);

  // Before start(): learns the backend's step times by running steps on it, about so long; a
  // machine that is too slow for the least number of steps takes up to eight times that.
  // Without it the model learns from the first requests, and until then nothing is refused by
  // prediction.
  void calibrate(TimeNs budget_ns);
  void start();                   // runs the step loop on a thread of its own
  bool drain(TimeNs timeout_ns);  // refuses new work, waits; true when nothing is left
  void stop();
  // Any thread. From the next step on, at most `num_blocks` of the backend's KV blocks are used.
  // What no longer fits is paused, youngest first, and resumed with the same bits when there is
  // room again.
  void set_pool_limit(int32_t num_blocks);

  // One transaction, without the thread. False when there was nothing to do.
  bool step();

  const EngineStats& stats() const;
  // Any thread: host memory that requests may be using now, at most.
  int64_t request_bytes() const;
  const BackendLimits& limits() const;
  bool draining() const;
  // Throws nothing, CHECKs every invariant of sequences and blocks; the simulation calls it each
  // step.
  void check_invariants() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace puna::engine
