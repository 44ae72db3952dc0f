// SPDX-License-Identifier: Apache-2.0
// Learns the backend's step times before the first request: prompts of a growing context in chunks
// of several sizes, decode steps of several widths, and both together, on sequences that nobody
// asked for. Every shape is one that the engine may plan; blocks and slots are all free then.
#include <algorithm>

#include "base/check.h"
#include "engine/engine_state.h"

namespace puna::engine {
namespace {

constexpr int kColdSteps = 2;    // not learned from: pages and caches are cold
constexpr int kMostSteps = 600;  // when the clock stands still
constexpr int kLeastSteps = 8;   // that fit the budget, so that no chunk takes all of it
constexpr int kMostBudgets = 8;  // that a slow machine may take
constexpr int32_t kFirstChunk = 8;
constexpr std::array<int, 4> kChunkShifts = {0, 2, 1, 3};
constexpr int32_t kShortPrompt = 2;
constexpr int32_t kLongestShort = 4 * kv::kBlockTokens;

class Calibration {
 public:
  Calibration(Backend& backend, const Clock& clock, int32_t chunk, LatencyModel& model,
              TimeNs budget_ns)
      : backend_(backend),
        clock_(clock),
        model_(model),
        limits_(backend.limits()),
        chunk_(std::min(chunk, limits_.max_batch_tokens)),
        half_ns_(clock.now_ns() + budget_ns / 2),
        end_ns_(clock.now_ns() + budget_ns),
        last_ns_(clock.now_ns() + kMostBudgets * budget_ns),
        longest_step_ns_(budget_ns / kLeastSteps) {
    largest_ = std::min(kFirstChunk, chunk_);
    share_out_blocks();
  }

  void run() {
    long_prompt();
    short_sequences();
    model_.end_calibration();
  }

 private:
  struct Row {
    std::vector<TokenId> tokens;
    std::vector<kv::BlockId> blocks;
    int32_t limit = 0;
    int32_t left() const { return limit - static_cast<int32_t>(tokens.size()); }
  };

  // Row 0 has half of the pool, for a long context; the others share the rest.
  void share_out_blocks() {
    const int32_t slots = std::min(limits_.max_num_seqs, limits_.max_batch_tokens);
    const int32_t half = std::max(1, limits_.num_blocks / 2);
    const int32_t others = std::min(slots - 1, limits_.num_blocks - half);
    kv::BlockId next = 0;
    for (int32_t row = 0; row <= others; ++row) {
      const int32_t each = row == 0 ? half : std::min(4, (limits_.num_blocks - half) / others);
      Row& made = rows_.emplace_back();
      for (int32_t i = 0; i < each; ++i) made.blocks.push_back(next++);
      made.limit = std::min(each * kv::kBlockTokens, limits_.max_model_len);
      if (row > 0) made.limit = std::min(made.limit, kLongestShort);
      made.tokens.reserve(static_cast<size_t>(made.limit));
    }
    batch_.items.reserve(rows_.size());
  }

  bool over(TimeNs at_ns) const { return steps_ >= kMostSteps || clock_.now_ns() >= at_ns; }
  // A slow machine goes on until it has seen enough, for some budgets at most.
  bool ended() const {
    return over(end_ns_) && (learned_ >= LatencyModel::kReadyCalibrated || over(last_ns_));
  }

  void add(size_t slot, int32_t count) {
    Row& row = rows_[slot];
    count = std::min(count, limits_.max_batch_tokens - batch_.num_tokens);
    if (count <= 0 || row.left() < count) return;
    const auto first = static_cast<int32_t>(row.tokens.size());
    for (int32_t i = 0; i < count; ++i) {
      row.tokens.push_back(
          static_cast<TokenId>((first + i + static_cast<int32_t>(slot)) % limits_.vocab_size));
    }
    const std::span<const TokenId> history = row.tokens;
    batch_.items.push_back({.slot = static_cast<int32_t>(slot),
                            .first_position = first,
                            .num_tokens = count,
                            .tokens = history.last(static_cast<size_t>(count)),
                            .block_table = row.blocks,
                            .sample = count == 1,
                            .history = history,
                            .sampling = count == 1 ? &greedy_ : nullptr,
                            .prompt_tokens = 1,
                            .banned = {}});
    batch_.num_tokens += count;
    batch_.num_samples += count == 1 ? 1 : 0;
    count == 1 ? shape_.add_decode(first) : shape_.add_prefill(first, count);
  }

  // Runs what was added, if anything.
  TimeNs step() {
    ++steps_;
    if (batch_.items.empty()) return 0;
    const TimeNs began_ns = clock_.now_ns();
    backend_.start(batch_);
    backend_.collect();
    const TimeNs took_ns = clock_.now_ns() - began_ns;
    if (++run_ > kColdSteps) {
      ++learned_;
      model_.observe(shape_, static_cast<double>(took_ns) / static_cast<double>(kNsPerSecond));
    }
    ++batch_.step;
    batch_.items.clear();
    batch_.num_tokens = 0;
    batch_.num_samples = 0;
    shape_ = {};
    return took_ns;
  }

  void long_prompt() {
    for (size_t i = 0; !over(half_ns_) && rows_[0].left() > largest_ + 1; ++i) {
      add(0, std::max(2, largest_ >> kChunkShifts[i % kChunkShifts.size()]));
      const TimeNs took_ns = step();
      if (took_ns < longest_step_ns_ / 2) largest_ = std::min(chunk_, 2 * largest_);
      add(0, 1);
      step();
    }
  }

  // All others decode at several widths, with and without a prompt beside them. As many begin in
  // a step as a chunk of the long prompt had tokens.
  void short_sequences() {
    for (size_t round = 0; !ended(); ++round) {
      for (size_t i = 1; i < rows_.size() && !ended(); ++i) {
        rows_[i].tokens.clear();
        add(i, std::min(kShortPrompt, rows_[i].limit - 1));
        if (batch_.num_tokens + kShortPrompt > largest_) step();
      }
      step();
      for (size_t width = rows_.size(); width > 1 && !ended(); width = (width + 1) / 2) {
        for (int beside = 0; beside < 3; ++beside) {
          for (size_t i = 1; i < width; ++i) add(i, 1);
          if (beside == 2) {
            if (rows_[0].left() <= largest_) rows_[0].tokens.clear();
            add(0, std::max(2, round % 2 == 0 ? largest_ : largest_ / 4));
          }
          step();
        }
        if (width == 2) break;
      }
      if (rows_.size() == 1) {
        if (rows_[0].left() < 2) rows_[0].tokens.clear();
        add(0, round % 4 == 0 ? 2 : 1);
        step();
      }
    }
  }

  Backend& backend_;
  const Clock& clock_;
  LatencyModel& model_;
  const BackendLimits limits_;
  const int32_t chunk_;
  const TimeNs half_ns_;
  const TimeNs end_ns_;
  const TimeNs last_ns_;
  const TimeNs longest_step_ns_;  // a prompt's chunks grow up to this
  int32_t largest_ = kFirstChunk;
  const SamplingParams greedy_{.temperature = 0.0F};
  std::vector<Row> rows_;
  Batch batch_;
  StepShape shape_;
  int steps_ = 0;  // also those with nothing to run
  int run_ = 0;
  int learned_ = 0;
};

}  // namespace

void Engine::calibrate(TimeNs budget_ns) {
  State& state = *state_;
  CHECK(!state.thread.joinable());
  Calibration(state.backend, state.clock, state.config.prefill_chunk_tokens, state.model, budget_ns)
      .run();
  state.load.times = state.model.times();
  state.admission.publish(state.load, Rung::kNone);
}

}  // namespace puna::engine
