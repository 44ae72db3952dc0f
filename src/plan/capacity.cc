// SPDX-License-Identifier: Apache-2.0
#include "plan/capacity.h"

#include <algorithm>
#include <cmath>

namespace puna::plan {
namespace {

constexpr int32_t kMostSequences = 4096;  // --max-num-seqs takes no more

// The largest number in [0, most] that fits; what fits makes everything smaller fit.
template <typename Fits>
int32_t largest(int32_t most, Fits fits) {
  int32_t known = 0;
  for (int32_t unknown = most + 1; known + 1 < unknown;) {
    const int32_t middle = known + (unknown - known) / 2;
    (fits(middle) ? known : unknown) = middle;
  }
  return known;
}

}  // namespace

Capacity capacity(const BackendCost& cost, int32_t max_position, const PlanRequest& request,
                  const MemoryPlan& plan) {
  const auto fits = [&](int32_t sequences, int32_t context) {
    const MemoryPlan full =
        full_plan(cost, request, sequences, plan.max_batch_tokens, context, kHostSizes - 1);
    // A pool of more blocks than int32_t counts is cut by full_plan.
    return full.total() <= plan.budget && full.num_blocks < INT32_MAX;
  };
  return {
      .most_sequences =
          largest(kMostSequences, [&](int32_t n) { return fits(n, plan.max_model_len); }),
      .longest_context =
          largest(max_position, [&](int32_t n) { return fits(plan.max_num_seqs, n); }),
  };
}

Speed estimate_speed(const formats::ModelSpec& spec, const MemoryPlan& plan,
                     uint64_t kv_bytes_per_token, const Machine& machine) {
  if (machine.read_per_s <= 0 || machine.ops_per_s <= 0) return {};
  const double hidden = spec.hidden_size;
  const double layer =
      hidden * (2.0 * spec.q_size() + 2.0 * spec.kv_size() + 3.0 * spec.intermediate_size);
  const double head = hidden * spec.vocab_size;
  const double context = std::max(plan.max_model_len / 2, 1);
  const double attention_ops = 4.0 * spec.q_size() * spec.num_layers * context;
  const double row_ops = 2 * (spec.num_layers * layer + head) + attention_ops;
  // An embedding that is not the head is looked up, not read.
  const double table_share = spec.tied_head ? 0 : head / (spec.num_layers * layer + 2 * head);
  const auto weights =
      static_cast<double>(plan.of(Owner::kWeightsMapped) + plan.of(Owner::kWeightsPacked)) *
      (1 - table_share);
  const auto seconds = [&](double sequences) {
    const double bytes = weights + sequences * context * static_cast<double>(kv_bytes_per_token);
    return std::max(bytes / machine.read_per_s, sequences * row_ops / machine.ops_per_s);
  };
  const double prompt_ops = 2 * spec.num_layers * layer + attention_ops;
  return {.decode_alone = 1 / seconds(1),
          .decode_together = plan.max_num_seqs / seconds(plan.max_num_seqs),
          .prefill = machine.ops_per_s / prompt_ops};
}

}  // namespace puna::plan
